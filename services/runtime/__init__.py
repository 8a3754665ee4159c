"""What every process shares: configuration, run loop, signals, errors, logs, statistics."""
