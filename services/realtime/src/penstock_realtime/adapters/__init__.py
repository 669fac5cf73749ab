"""Technology behind the ports: NATS and Redis."""
