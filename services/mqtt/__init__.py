"""A connection to an MQTT broker that only publishes: what outputs and alerts share."""
