"""Contracts: everything that crosses a service border. pydantic and the standard library only."""
