"""The historian against kills, power cuts, full disks and damaged files."""
