"""Alert rules of tenants: judged, kept, handed to the process that evaluates them, asked of it."""
