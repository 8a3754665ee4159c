"""The ``plc-edge`` command: one file per verb."""
