"""The bus: msgpack frames over ZeroMQ ipc sockets. Knows nothing of PLCs, MQTT or SQLite."""
