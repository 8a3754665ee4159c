"""S7CommPlus: blocks with optimised access, by name. Experimental (docs/s7plus.md)."""
