"""Billing: accounts, keys and usage in PostgreSQL, fed exactly once by the event log."""
