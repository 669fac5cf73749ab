"""Ask a service over the bus, with the operator's rights: what `up` and operator commands share."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import nats
from nats.aio.client import Client
from nats.errors import Error as BusError
from nats.errors import NoRespondersError
from pydantic import BaseModel, ValidationError

from penstock.addresses import without_credentials
from penstock.errors import OperatorError
from penstock_shared.contracts.errors import ErrorReply

_REQUEST_TIMEOUT_S = 10.0
_CONNECT_TIMEOUT_S = 5.0
# A service that restarts is back within a few seconds.
_ATTEMPTS = 20
_PAUSE_S = 0.25

A = TypeVar("A", bound=BaseModel)


class RefusedError(OperatorError):
    """The service answered, and its answer was no."""

    def __init__(self, code: str, message: str) -> None:
        """Keep the service's stable error code; its message says what to do."""
        super().__init__(message, f"(error code: {code})")
        self.code = code


class OperatorBus:
    """Request and reply with the services."""

    def __init__(self, client: Client) -> None:
        """Use a connection that `operator_bus` opened."""
        self._client = client

    async def ask(self, subject: str, body: BaseModel, answer: type[A]) -> A:
        """Send one question and return the service's answer.

        Raises:
            RefusedError: The service refused; `code` tells the reason.
            OperatorError: Nobody answers, or something that this version does not understand.
        """
        # What was not said stays unsaid: to an update, a field's default would be a wish.
        reply = await self._request(subject, body.model_dump_json(exclude_unset=True).encode())
        try:
            # Which of the two it is decides the key `error`, which no answer has.
            if "error" in json.loads(reply):
                refusal = ErrorReply.model_validate_json(reply).error
                raise RefusedError(refusal.code, refusal.message)
            return answer.model_validate_json(reply)
        except (ValidationError, ValueError) as error:
            raise OperatorError(
                f"The answer on {subject} is not of this version.",
                "Use the `penstock` command of the version that the services run.",
            ) from error

    async def _request(self, subject: str, payload: bytes) -> bytes:
        for _ in range(_ATTEMPTS):
            try:
                reply = await self._client.request(subject, payload, timeout=_REQUEST_TIMEOUT_S)
            except NoRespondersError:
                await asyncio.sleep(_PAUSE_S)
            except (BusError, OSError) as error:
                raise _silent(subject) from error
            else:
                return reply.data
        raise _silent(subject)


@asynccontextmanager
async def operator_bus(nats_url: str) -> AsyncIterator[OperatorBus]:
    """Connect with the services' credentials; `nats_url` may list several servers.

    Raises:
        OperatorError: The bus does not let us in.
    """
    try:
        # The client's own limit is one per try, and it tries for two minutes.
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            client = await nats.connect(
                nats_url.split(","), allow_reconnect=False, error_cb=keep_quiet
            )
    except (BusError, OSError) as error:
        shown = ", ".join(without_credentials(url) for url in nats_url.split(","))
        raise OperatorError(
            f"The bus at {shown} cannot be reached.",
            "See `penstock ps`, or PENSTOCK_NATS_URL if it names a server of your own.",
        ) from error
    try:
        yield OperatorBus(client)
    finally:
        await client.close()


async def keep_quiet(_: Exception) -> None:
    """Leave it to the failing call to speak; nats-py would print a trace besides."""


def _silent(subject: str) -> OperatorError:
    return OperatorError(
        f"No service answers on {subject}.",
        "See `penstock ps` and the services' logs in the data directory.",
    )
