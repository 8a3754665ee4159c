"""Shifts and OEE: what a machine did between two moments, from its history (docs/oee.md)."""
