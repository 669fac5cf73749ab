"""Penstock on one machine: embedded servers, their supervisor and the operator's command."""

__version__ = "0.1.0"
