"""What a request is at, from the last message of its subject in the event log."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from penstock_realtime.domain.response_object import ResponseHead, finished
from penstock_realtime.ports import CancelCommands
from penstock_realtime.serving.following import Following, Sources
from penstock_shared.contracts.errors import NotFoundError
from penstock_shared.contracts.requests import RequestEnded, RequestFact, RequestRouted
from penstock_shared.contracts.responses import FinalFrame, RequestState

_CANCEL_WAIT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Lookup:
    """Answers about requests by id, and cancels them."""

    sources: Sources
    commands: CancelCommands

    async def response(self, tenant: str, request_id: str) -> dict[str, Any]:
        """The `response` object. Echoed fields that no fact carries in the clear are empty.

        Raises:
            NotFoundError: this tenant has no such request.
        """
        return await self._object(await self._fact(tenant, request_id))

    async def state(self, tenant: str, request_id: str) -> RequestState:
        """The same for NATS clients.

        Raises:
            NotFoundError: this tenant has no such request.
        """
        fact = await self._fact(tenant, request_id)
        if not isinstance(fact, RequestEnded):
            return RequestState(request_id=fact.request_id, status="in_progress", model=fact.model)
        return RequestState(
            request_id=fact.request_id,
            status="ended",
            model=fact.model,
            final=await self.sources.open_final(fact),
        )

    async def cancel(self, tenant: str, request_id: str) -> dict[str, Any]:
        """Command the cancellation; returns the response as it is after at most two seconds.

        Raises:
            NotFoundError: this tenant has no such request.
            UnavailableError: the command could not be stored.
        """
        fact = await self._fact(tenant, request_id)
        if isinstance(fact, RequestEnded):
            return await self._object(fact)
        following = Following(
            self.sources, tenant, request_id, await self.sources.frames.open(tenant, request_id)
        )
        try:
            await self.commands.cancel(tenant, request_id)
            final = await asyncio.wait_for(following.final(), _CANCEL_WAIT_S)
        except TimeoutError:
            return _head(fact).in_progress()
        finally:
            await following.close()
        return finished(_head(fact), final)

    async def _fact(self, tenant: str, request_id: str) -> RequestFact:
        fact = await self.sources.facts.last_fact(tenant, request_id)
        if fact is None:
            msg = f"No response with the id {request_id!r}."
            raise NotFoundError(msg, code="response_not_found", param="response_id")
        return fact

    async def _object(self, fact: RequestFact) -> dict[str, Any]:
        if not isinstance(fact, RequestEnded):
            return _head(fact).in_progress()
        final: FinalFrame = await self.sources.open_final(fact)
        return finished(_head(fact), final)


def _head(fact: RequestFact) -> ResponseHead:
    if isinstance(fact, RequestRouted):
        return ResponseHead(
            request_id=fact.request_id,
            model=fact.decision.model,
            created_at=fact.accepted_at,
            sampling=fact.sampling,
        )
    return ResponseHead(request_id=fact.request_id, model=fact.model, created_at=fact.routed_at)
