"""Owns the outbox on disk: commits what readers send, dispatches it to outputs, drops by bound."""
