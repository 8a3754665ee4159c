"""What a reader can speak. One folder each: ``model.py`` is its part of the configuration (only
``plc-edge`` loads it), ``source.py`` the reader's half. The table is ``AnyPlc`` in
services/runtime/config.py: a protocol is what a PLC's model says in ``protocol``.
"""
