"""Asking billing: how the operator's commands change accounts and read usage."""

import asyncio
import os
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from penstock.errors import OperatorError
from penstock.stack_locator import locate_stack

A = TypeVar("A", bound=BaseModel)


def ask_billing(data_dir: Path | None, subject: str, question: BaseModel, answer: type[A]) -> A:
    """Find the stack, send one question and return billing's answer.

    Raises:
        OperatorError: No stack runs, billing does not answer, or it refuses.
    """
    return asyncio.run(_ask(locate_stack(data_dir, os.environ).nats_url, subject, question, answer))


def build(model: type[A], **fields: Any) -> A:
    """Build a command from what the operator typed.

    Raises:
        OperatorError: A value is not of the shape that the contract asks for.
    """
    try:
        return model(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise OperatorError(
                f"This does not go together: {reason}.", "--help shows examples."
            ) from error
        field = str(first["loc"][0])
        inside = ".".join(str(part) for part in first["loc"][1:])
        raise OperatorError(
            f"{fields[field]!r} is no valid {field.replace('_', ' ')}: {inside}{inside and ': '}"
            f"{reason}.",
            "Correct it and run the command again; --help shows examples.",
        ) from error


async def _ask(nats_url: str, subject: str, question: BaseModel, answer: type[A]) -> A:
    from penstock.operator_bus import operator_bus  # noqa: PLC0415 - loads the bus's client

    async with operator_bus(nats_url) as bus:
        return await bus.ask(subject, question, answer)
