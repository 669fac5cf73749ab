"""The three servers that Penstock brings along: nats-server, PostgreSQL and Redis."""
