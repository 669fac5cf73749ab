"""Asking billing over the bus: how the operator's commands change accounts and read usage."""

import asyncio
import os
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from penstock.errors import OperatorError
from penstock.stack_locator import locate_stack
from penstock_shared.contracts.errors import ErrorReply

_CONNECT_TIMEOUT_S = 3.0
_ANSWER_TIMEOUT_S = 15.0
_ATTEMPTS = 20
_PAUSE_S = 0.1

A = TypeVar("A", bound=BaseModel)


def ask_billing(data_dir: Path | None, subject: str, question: BaseModel, answer: type[A]) -> A:
    """Find the stack, send one question and return billing's answer.

    Raises:
        OperatorError: No stack runs, billing does not answer, or it refuses.
    """
    stack = locate_stack(data_dir, os.environ)
    return asyncio.run(_ask(stack.nats_url, subject, question, answer))


def build(model: type[A], **fields: Any) -> A:
    """Build a command from what the operator typed.

    Raises:
        OperatorError: A value is not of the shape that the contract asks for.
    """
    try:
        return model(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "command"
        reason = first["msg"].removeprefix("Value error, ")
        raise OperatorError(
            f"{fields.get(field)!r} is no valid {field.replace('_', ' ')}: {reason}.",
            "Correct it and run the command again; --help shows examples.",
        ) from error


async def _ask(nats_url: str, subject: str, question: BaseModel, answer: type[A]) -> A:
    import nats  # noqa: PLC0415 - loading it would delay `--help`
    from nats.errors import Error as BusError  # noqa: PLC0415 - as above

    try:
        # The client's own timeout is one per try, and it tries for two minutes.
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            connection = await nats.connect(
                nats_url.split(","), name="penstock-cli", allow_reconnect=False, error_cb=_silent
            )
    except (BusError, OSError, TimeoutError) as error:
        raise OperatorError(
            "The bus does not answer.",
            "See `penstock ps`, or check PENSTOCK_NATS_URL and its credentials.",
        ) from error
    try:
        reply = await _request(connection, subject, question.model_dump_json().encode())
    except (BusError, OSError, TimeoutError) as error:
        raise OperatorError(
            "Billing does not answer.", "See `penstock ps` and billing's log, then try again."
        ) from error
    finally:
        await connection.close()
    return _read(reply, answer)


async def _silent(_: Exception) -> None:
    """The client would print every failed try; the operator gets one sentence."""


async def _request(connection: Any, subject: str, payload: bytes) -> bytes:
    """Ask, and ask again while billing's subscription is only on its way."""
    from nats.errors import NoRespondersError  # noqa: PLC0415 - as above

    for attempt in range(_ATTEMPTS):
        try:
            reply = await connection.request(subject, payload, timeout=_ANSWER_TIMEOUT_S)
        except NoRespondersError:
            if attempt == _ATTEMPTS - 1:
                raise
            await asyncio.sleep(_PAUSE_S)
        else:
            return bytes(reply.data)
    raise AssertionError


def _read(reply: bytes, answer: type[A]) -> A:
    try:
        refusal = ErrorReply.model_validate_json(reply)
    except ValidationError:
        return answer.model_validate_json(reply)
    hint = "Correct the command and run it again; --help shows examples."
    if refusal.error.type == "service_unavailable_error":
        hint = "See `penstock ps` and billing's log, then try again."
    raise OperatorError(refusal.error.message, hint)
