"""Siemens S7: addresses, types, layouts, read plan and session. Pure but for ``session``."""
