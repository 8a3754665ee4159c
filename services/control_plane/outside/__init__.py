"""Databases and pages outside, kept as the control plane wants them through their HTTP APIs."""
