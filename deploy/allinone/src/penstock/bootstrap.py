"""The demo tenant and its first API key, so that a fresh stack answers at once."""

import asyncio
import json
from typing import Any, NamedTuple

from penstock.errors import OperatorError

DEMO_TENANT = "demo"
_CREATE_TENANT = "v1.admin.accounts.create_tenant"
_CREATE_KEY = "v1.admin.accounts.create_key"
_REQUEST_TIMEOUT_S = 5.0
_CONNECT_TIMEOUT_S = 5.0
_ATTEMPTS = 20
_PAUSE_S = 0.25


class DemoTenant(NamedTuple):
    """The tenant that `penstock up` provides."""

    tenant: str
    api_key: str


class RefusedError(Exception):
    """Billing answered, and its answer was no."""

    def __init__(self, code: str, message: str) -> None:
        """Keep billing's error code and its message."""
        super().__init__(f"{code}: {message}")
        self.code = code


async def ensure_demo_tenant(nats_url: str, known_key: str | None) -> DemoTenant:
    """Create the demo tenant unless it exists, and a key unless `known_key` is one of its.

    Raises:
        OperatorError: Billing does not answer, or refuses.
    """
    import nats  # noqa: PLC0415 - loading it would delay `penstock ps` and `--help`
    from nats.errors import Error as BusError  # noqa: PLC0415 - as above

    try:
        connection = await nats.connect(
            nats_url.split(","), allow_reconnect=False, connect_timeout=_CONNECT_TIMEOUT_S
        )
        try:
            return await _provide(connection, known_key)
        finally:
            await connection.close()
    except (RefusedError, BusError, OSError, KeyError, ValueError) as error:
        raise OperatorError(
            f"The demo tenant could not be created ({error}).",
            "See billing's log in the data directory, then start again.",
        ) from error


async def _provide(connection: Any, known_key: str | None) -> DemoTenant:
    is_new = await _create_tenant(connection)
    if known_key is not None and not is_new:
        return DemoTenant(DEMO_TENANT, known_key)
    answer = await _ask(connection, _CREATE_KEY, {"tenant": DEMO_TENANT, "name": "bootstrap"})
    return DemoTenant(DEMO_TENANT, str(answer["secret"]))


async def _create_tenant(connection: Any) -> bool:
    """Create the tenant; False when it exists already."""
    try:
        await _ask(connection, _CREATE_TENANT, {"tenant": DEMO_TENANT, "name": "Demo"})
    except RefusedError as error:
        if error.code == "already_exists":
            return False
        raise
    return True


async def _ask(connection: Any, subject: str, body: dict[str, str]) -> dict[str, Any]:
    from nats.errors import NoRespondersError  # noqa: PLC0415 - as above

    payload = json.dumps(body).encode()
    for _ in range(_ATTEMPTS):
        try:
            reply = await connection.request(subject, payload, timeout=_REQUEST_TIMEOUT_S)
        except NoRespondersError:  # billing restarts, or its subscription is on its way
            await asyncio.sleep(_PAUSE_S)
            continue
        answer: dict[str, Any] = json.loads(reply.data)
        if not answer.get("ok"):
            error = answer.get("error") or {}
            raise RefusedError(error.get("code", "unknown"), error.get("message", ""))
        return answer
    raise TimeoutError("billing does not answer on the bus")
