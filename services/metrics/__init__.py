"""The metrics process: Prometheus, the panel, the API; what it knows comes over the bus."""
