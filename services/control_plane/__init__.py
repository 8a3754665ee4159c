"""The centre's process: tenants, boxes, credentials, quotas and usage by API."""
