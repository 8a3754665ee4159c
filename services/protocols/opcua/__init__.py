"""What the reader of an OPC UA server and the command share: nodes, security, values, browsing.

Only modules that speak with a server import `asyncua`; the configuration's do not.
"""
