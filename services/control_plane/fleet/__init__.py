"""Boxes that look after themselves: their certificates, their targets, reports, roll-outs."""
