"""Pure: no clock, file or socket; times are Unix ms, stretches of time [begin, end)."""
