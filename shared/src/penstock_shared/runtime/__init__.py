"""Runtime: what every service runs on. Broker, consumers, keys, telemetry, lifecycle."""
