"""Copies raw bytes of a group to another PLC: the one place that writes to a machine."""
