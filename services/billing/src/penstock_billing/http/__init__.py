"""Billing's own port: where payment providers tell what has happened."""
