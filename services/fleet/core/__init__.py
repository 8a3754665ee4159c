"""What to do next, and what a site's health means: no clock, socket or file."""
