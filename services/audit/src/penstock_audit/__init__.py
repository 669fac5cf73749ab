"""Audit: a tamper-evident Merkle log over every event, signed, verifiable offline."""
