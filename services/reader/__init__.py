"""Reads one PLC: scans its groups, makes the messages, keeps them until the store has them."""
