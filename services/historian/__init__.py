"""History on the box: what was delivered, kept for weeks, and asked for. docs/historico.md."""
