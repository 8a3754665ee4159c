"""What surrounds the agent, from its own configuration: broker to dashboards."""
