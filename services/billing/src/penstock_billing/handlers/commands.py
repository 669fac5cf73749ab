"""Answers commands and questions: one table of verbs for each subject that billing serves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError

from penstock_billing import metrics
from penstock_billing.domain.announcements import Act
from penstock_shared.contracts.errors import NotFoundError, PenstockError, SchemaError
from penstock_shared.runtime.clock import Clock, IdSource
from penstock_shared.runtime.telemetry import child_traceparent

C = TypeVar("C", bound=BaseModel)
Verb: TypeAlias = Callable[[bytes, Act], Awaitable[BaseModel]]


class CommandDesk:
    """Carries out what it is asked, by verb. An answer is sent after its effect is committed."""

    def __init__(self, verbs: Mapping[str, Verb], clock: Clock, ids: IdSource) -> None:
        self._verbs = verbs
        self._clock = clock
        self._ids = ids

    async def on_command(self, verb: str, payload: bytes, traceparent: str | None) -> BaseModel:
        """Carry out one command and return the answer.

        Raises:
            PenstockError: what was wrong, in a form that is meant for the caller.
        """
        handle = self._verbs.get(verb)
        if handle is None:
            msg = f"There is no command '{verb[:40]}': use one of {', '.join(self._verbs)}."
            raise NotFoundError(msg, code="unknown_command")
        act = Act(self._clock.now(), child_traceparent(traceparent), self._ids.new)
        try:
            answer = await handle(payload, act)
        except PenstockError as error:
            metrics.ACTS.labels(verb, error.code).inc()
            raise
        metrics.ACTS.labels(verb, "done").inc()
        return answer


def parse_command(command: type[C], payload: bytes) -> C:
    """Read a command.

    Raises:
        SchemaError: it is not of the contract's shape; names the field.
    """
    try:
        return command.model_validate_json(payload or b"{}")
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        msg = f"'{field}': {first['msg']}." if field else f"{first['msg']}."
        raise SchemaError(msg, param=field or None) from error
