"""What this replica has just written to the event log, so that its learner need not parse it."""

from __future__ import annotations

from typing import Final

from penstock_shared.contracts.requests import RequestFact, RequestRouted
from penstock_shared.runtime.broker import StoredMessage
from penstock_shared.runtime.request_log import read_fact

_KEPT: Final = 1_024
"""At about 10 kB each; those that lost against another replica's are never asked for."""


class OwnFacts:
    """The latest `routed` facts, by their bytes: whatever has the same bytes is the same fact."""

    def __init__(self) -> None:
        self._facts: dict[bytes, RequestRouted] = {}

    def add(self, payload: bytes, fact: RequestRouted) -> None:
        """This is about to be written."""
        self._facts[payload] = fact
        if len(self._facts) > _KEPT:
            del self._facts[next(iter(self._facts))]

    def read(self, message: StoredMessage) -> RequestFact:
        """The fact in a message of EVENTS; once, if it is an own one.

        Raises:
            UnreadableFactError: it is malformed, or of a kind that is not known here.
        """
        if message.event_type == RequestRouted.TYPE:
            own = self._facts.pop(message.data, None)
            if own is not None:
                return own
        return read_fact(message)
