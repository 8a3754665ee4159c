"""The ``opcua`` output: the newest values as an OPC UA server's address space."""
