"""The centre's meter: counts what tenants send, and stops those who send far beyond their plan."""
