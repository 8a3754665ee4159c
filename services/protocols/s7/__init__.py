"""S7 by absolute address (services/s7) as a source of the reader."""
