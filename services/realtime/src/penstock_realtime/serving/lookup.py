"""Responses by id: from EVENTS while that has them, from the store after that (ADR 0014)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from penstock_realtime.domain.input_items import input_items
from penstock_realtime.domain.response_object import ResponseHead, finished
from penstock_realtime.ports import (
    Budget,
    CancelCommands,
    Deletions,
    Policy,
    ResponseFacts,
    StoredResponses,
)
from penstock_realtime.serving.following import Following, Sources
from penstock_realtime.serving.resuming import not_found, open_content, open_head
from penstock_shared.contracts.errors import ConflictError
from penstock_shared.contracts.requests import RequestEnded, RequestRouted
from penstock_shared.contracts.responses import RequestState

_CANCEL_WAIT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Lookup:
    """Answers about requests by id, cancels and deletes them."""

    sources: Sources
    commands: CancelCommands
    deletions: Deletions
    stored: StoredResponses | None
    """None: there is no store, and what EVENTS has no more is gone."""
    retention: timedelta
    """For how long a response may be retrieved, wherever it still stands."""

    async def facts(self, tenant: str, request_id: str) -> ResponseFacts:
        """A response that may be retrieved: `store` was not false, and it is still there.

        Raises:
            NotFoundError: this tenant has no such response, or it was deleted, or has expired.
            UnavailableError: EVENTS does not answer; or has it no more, and the store does not.
        """
        known = await self._known(tenant, request_id)
        if known is None or not known.routed.store or self._expired(known.routed):
            raise not_found(request_id)
        return known

    async def response(self, tenant: str, request_id: str) -> dict[str, Any]:
        """The `response` object, as the response's own stream told it.

        Raises:
            NotFoundError: as `facts`.
            UnavailableError: as `facts`.
            ErasedError: the key of its content was destroyed.
        """
        return await self._object(await self.facts(tenant, request_id))

    async def input_items(self, tenant: str, request_id: str) -> list[dict[str, Any]]:
        """What it was asked; raises as `response` does."""
        known = await self.facts(tenant, request_id)
        return input_items(request_id, await open_content(self.sources, known.routed))

    async def follow(
        self,
        tenant: str,
        request_id: str,
        budget: Budget | None = None,
        policy: Policy = Policy.BLOCK,
    ) -> tuple[ResponseHead, Following]:
        """Listen to it, whether it still runs or has ended; raises as `response` does."""
        routed, ended = await self.facts(tenant, request_id)
        head = await open_head(self.sources, routed)
        final = None if ended is None else await self.sources.open_final(ended)
        feed = await self.sources.frames.open(tenant, request_id, budget, policy)
        following = Following(self.sources, tenant, request_id, feed)
        if final is not None:
            following.end(final)
        return head, following

    async def state(self, tenant: str, request_id: str) -> RequestState:
        """For NATS clients that come late: `store` is none of their API's.

        Raises:
            NotFoundError: this tenant has no such request, or has deleted it.
        """
        known = await self._known(tenant, request_id)
        if known is None:
            raise not_found(request_id)
        routed, ended = known
        if ended is None:
            return RequestState(request_id=request_id, status="in_progress", model=routed.model)
        return RequestState(
            request_id=request_id,
            status="ended",
            model=ended.model,
            final=await self.sources.open_final(ended),
        )

    async def ended(self, tenant: str, request_id: str) -> RequestEnded:
        """How a request has ended, kept by `store` or not: what it said stays sealed.

        Raises:
            NotFoundError: this tenant has no such request, or has deleted it.
            ConflictError: it has not ended.
            UnavailableError: EVENTS does not answer; or has it no more, and the store does not.
        """
        known = await self._known(tenant, request_id)
        if known is None:
            raise not_found(request_id)
        if known.ended is None:
            msg = "This response has not ended: try again once it has."
            raise ConflictError(msg, code="response_not_ended", param="response_id")
        return known.ended

    async def delete(self, tenant: str, request_id: str, key_id: str) -> None:
        """Delete it for good, whether it still runs, has ended or is in the store.

        Raises:
            NotFoundError: as `facts`.
            UnavailableError: as `facts`; it may be deleted or not.
        """
        await self.facts(tenant, request_id)
        await self.deletions.delete(tenant, request_id, key_id)

    async def cancel(self, tenant: str, request_id: str) -> dict[str, Any]:
        """Command the cancellation; returns the response as it is after at most two seconds.

        Whatever runs can be cancelled, with `store` or without; what has ended stays as it is.

        Raises:
            NotFoundError: this tenant has no such request; or it was deleted, and ends all the
                same; or it has ended, and as `facts`.
            UnavailableError: the command could not be stored.
        """
        routed = await self._running(tenant, request_id)
        if routed is None:
            return await self.response(tenant, request_id)
        if await self.deletions.deleted(tenant, request_id):
            await self.commands.cancel(tenant, request_id)
            raise not_found(request_id)
        following = Following(
            self.sources, tenant, request_id, await self.sources.frames.open(tenant, request_id)
        )
        try:
            await self.commands.cancel(tenant, request_id)
            head = await open_head(self.sources, routed)
            final = await asyncio.wait_for(following.final(), _CANCEL_WAIT_S)
        except TimeoutError:
            return head.in_progress()
        finally:
            await following.close()
        return finished(head, final)

    async def _running(self, tenant: str, request_id: str) -> RequestRouted | None:
        log = self.sources.facts
        last = await log.last_fact(tenant, request_id)
        if last is None or isinstance(last, RequestEnded):
            return None
        return last if isinstance(last, RequestRouted) else await log.routed(tenant, request_id)

    async def _known(self, tenant: str, request_id: str) -> ResponseFacts | None:
        """Unless it was deleted."""
        routed, last, deleted = await asyncio.gather(
            self.sources.facts.routed(tenant, request_id),
            self.sources.facts.last_fact(tenant, request_id),
            self.deletions.deleted(tenant, request_id),
        )
        if deleted:
            return None
        if routed is not None:
            return ResponseFacts(routed, last if isinstance(last, RequestEnded) else None)
        return None if self.stored is None else await self.stored.get(tenant, request_id)

    async def _object(self, known: ResponseFacts) -> dict[str, Any]:
        head = await open_head(self.sources, known.routed)
        if known.ended is None:
            return head.in_progress()
        return finished(head, await self.sources.open_final(known.ended))

    def _expired(self, routed: RequestRouted) -> bool:
        return routed.accepted_at + self.retention <= self.sources.clock.now()
