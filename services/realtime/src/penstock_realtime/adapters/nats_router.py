"""The routers by request/reply. Asking twice is safe: the request id decides (I2)."""

from __future__ import annotations

import asyncio
from typing import Final

import nats.errors
from pydantic import ValidationError

from penstock_realtime.errors import RefusedError
from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import TRACEPARENT
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.requests import Accepted, Admission, AdmissionReply, Rejected
from penstock_shared.runtime.broker import Broker

_NOBODY_PAUSES_S: Final = (0.1, 0.2, 0.4)
"""A router that restarts is back within a second; longer than that the client decides."""


class NatsRouter:
    """`RouterGateway` over NATS."""

    def __init__(self, broker: Broker, timeout_s: float) -> None:
        self._broker = broker
        self._timeout_s = timeout_s

    async def admit(self, tenant: str, admission: Admission, traceparent: str) -> Accepted:
        """Ask until a router answers, for at most the timeout."""
        raw = await self._ask(
            subjects.admitted(tenant), admission.model_dump_json().encode(), traceparent
        )
        try:
            reply = AdmissionReply.model_validate_json(raw).reply
        except ValidationError as error:
            msg = "The router's answer was not understood."
            raise UnavailableError(msg, code="router_unavailable") from error
        if isinstance(reply, Rejected):
            raise RefusedError(reply.http_status, reply.error, reply.retry_after_s)
        return reply

    async def _ask(self, subject: str, payload: bytes, traceparent: str) -> bytes:
        headers = {TRACEPARENT: traceparent}
        # Two tries: a router that died with the request in its hands does not answer, and the
        # next one finds `routed` in the log, or writes it.
        for _ in range(2):
            for pause_s in (*_NOBODY_PAUSES_S, None):
                try:
                    msg = await self._broker.client.request(
                        subject, payload, timeout=self._timeout_s / 2, headers=headers
                    )
                except nats.errors.NoRespondersError as error:
                    if pause_s is None:
                        raise _no_router() from error
                    await asyncio.sleep(pause_s)
                except (TimeoutError, nats.errors.TimeoutError):
                    break
                except (nats.errors.Error, OSError) as error:
                    raise _no_router() from error
                else:
                    return msg.data
        raise _no_router()


def _no_router() -> UnavailableError:
    return UnavailableError(
        "No router answers at the moment: try again with the same 'Idempotency-Key', if you sent "
        "one.",
        code="router_unavailable",
    )
