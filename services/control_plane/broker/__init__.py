"""The broker's accounts, kept as the control plane wants them."""
