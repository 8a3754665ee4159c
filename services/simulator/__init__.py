"""S7 servers with moving values: commissioning, demonstrations and tests without a PLC."""
