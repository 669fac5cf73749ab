"""What realtime answers over NATS: who may connect, and how a request stands."""

from __future__ import annotations

import asyncio

from nats.aio.msg import Msg
from pydantic import ValidationError

from penstock_realtime import metrics
from penstock_realtime.ports import LoginCodec
from penstock_realtime.serving.lookup import Lookup
from penstock_shared.contracts.errors import ErrorReply, PenstockError, SchemaError, public_error
from penstock_shared.contracts.ids import parse_request_id
from penstock_shared.contracts.responses import RequestGet
from penstock_shared.contracts.subjects import may_reply_to, parse, tenant_permissions
from penstock_shared.runtime.access import AccessControl
from penstock_shared.runtime.telemetry import log

_LOOKUPS_AT_ONCE = 64


class RequestGetHandler:
    """Answers `v1.<tenant>.requests.get`."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._slots = asyncio.Semaphore(_LOOKUPS_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def on_request_get(self, msg: Msg) -> None:
        """Answer with a `RequestState`, or with an `ErrorReply`; several at a time."""
        tenant = parse(msg.subject).tenant
        if not may_reply_to(tenant, msg.reply):
            log().warning("request_get.foreign_inbox", tenant=tenant)
            return
        await self._slots.acquire()  # the subscription's own queue holds the rest
        task = asyncio.create_task(self._respond(tenant, msg))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()

    async def _respond(self, tenant: str, msg: Msg) -> None:
        try:
            answer = await self._answer(tenant, msg.data)
        except Exception as error:  # noqa: BLE001  whoever asks gets an answer
            if not isinstance(error, PenstockError):
                log().error("request_get.failed", exc_info=error)
            answer = ErrorReply(error=public_error(error).body()).model_dump_json().encode()
        await msg.respond(answer)

    async def _answer(self, tenant: str, data: bytes) -> bytes:
        try:
            asked = RequestGet.model_validate_json(data)
        except ValidationError as error:
            msg = 'Expected {"request_id": "…"}.'
            raise SchemaError(msg, param="request_id") from error
        state = await self._lookup.state(tenant, parse_request_id(asked.request_id))
        return state.model_dump_json().encode()


class LoginHandler:
    """Answers nats-server's auth callout: the API key decides, as at the HTTP edge."""

    def __init__(self, access: AccessControl, codec: LoginCodec) -> None:
        self._access = access
        self._codec = codec

    async def on_login(self, msg: Msg) -> None:
        """Let a tenant's key in with that tenant's permissions, or keep it out."""
        request = self._codec.parse(msg.data)
        try:
            identity = self._access.authenticate(request.secret)
        except PenstockError as error:
            metrics.NATS_LOGINS.labels("refused").inc()
            await msg.respond(self._codec.refuse(request, error.code))
            return
        tenant, key_id = identity.tenant.tenant, identity.key.key_id
        metrics.NATS_LOGINS.labels("granted").inc()
        await msg.respond(self._codec.grant(request, key_id, tenant_permissions(tenant)))
