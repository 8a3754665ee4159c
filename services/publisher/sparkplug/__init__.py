"""A box as a Sparkplug B 3.0 edge node: one per tenant, its PLCs the devices (docs/sparkplug.md).

``metrics`` names and types what a PLC has, ``node`` makes the messages and knows what the host was
told (both pure), ``flow`` numbers and settles them, ``link`` is the connection.
"""
