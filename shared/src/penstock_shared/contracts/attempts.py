"""What every job and every fact of an attempt says about it."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from penstock_shared.contracts.usage import Price, Usage


class Attempt(Protocol):
    """What identifies an attempt and its price: a job has it, and so has every fact of one."""

    @property
    def request_id(self) -> str:
        """Of the request."""
        ...

    @property
    def tenant(self) -> str:
        """Whose it is."""
        ...

    @property
    def key_id(self) -> str:
        """By which API key it came."""
        ...

    @property
    def data_subject(self) -> str:
        """Whose key seals its content."""
        ...

    @property
    def model(self) -> str:
        """That runs it."""
        ...

    @property
    def attempt(self) -> int:
        """Its number, from 1."""
        ...

    @property
    def store(self) -> bool:
        """Whether the response is kept beyond the event log's own time."""
        ...

    @property
    def price(self) -> Price:
        """Fixed when it was routed."""
        ...

    @property
    def used_before(self) -> Usage:
        """What the request's earlier attempts have used."""
        ...

    @property
    def routed_at(self) -> datetime:
        """When the request was accepted."""
        ...
