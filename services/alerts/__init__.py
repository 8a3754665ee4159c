"""The alert engine: rules on values, right under replay, loss and restart."""
