"""The conversation that a request goes on with (`previous_response_id`), from the facts of its end.

A response's sealed content holds the whole conversation before it, so one look-up is enough
however long the chain is, and deleting an earlier response does not tear it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from penstock_realtime.domain.generation_request import GenerationRequest
from penstock_realtime.domain.input_items import said
from penstock_realtime.domain.response_object import call_id, response_id
from penstock_realtime.ports import ResponseFacts
from penstock_realtime.serving.following import Sources
from penstock_realtime.serving.resuming import open_content
from penstock_shared.contracts.errors import (
    ConflictError,
    ErasedError,
    NotFoundError,
    PermanentError,
)
from penstock_shared.contracts.requests import ChatMessage, RequestEnded, RequestRouted

Facts = Callable[[str, str], Awaitable[ResponseFacts]]
"""Of a tenant's response that may be retrieved; raises NotFoundError when there is none."""
_PARAM: Final = "previous_response_id"


@dataclass(frozen=True, slots=True)
class Conversations:
    """Reads what was said before."""

    facts: Facts
    sources: Sources

    async def before(self, tenant: str, given: GenerationRequest) -> tuple[ChatMessage, ...]:
        """All turns up to the previous response's own answer, without its `instructions`.

        Raises:
            PermanentError: this tenant has no such response that was kept, it has no answer, or
                it made no call that the request brings the output of.
            ConflictError: it is still running.
            TransientError: a fact or a key cannot be read now.
        """
        if given.previous is None:
            return ()
        routed, ended = await self._kept(tenant, given.previous)
        _refuse_strange_outputs(given, ended)
        try:
            content = await open_content(self.sources, routed)
            final = await self.sources.open_final(ended)
        except ErasedError as error:
            raise _not_found(given.previous) from error
        answer = (ChatMessage(role="assistant", content=final.text),) if final.text else ()
        return (*said(content), *answer)

    async def _kept(self, tenant: str, request_id: str) -> tuple[RequestRouted, RequestEnded]:
        try:
            routed, ended = await self.facts(tenant, request_id)
        except NotFoundError as error:
            raise _not_found(request_id) from error
        if ended is None:
            msg = (
                f"Response '{response_id(request_id)}' is still in progress: go on with it once "
                "it has ended."
            )
            raise ConflictError(msg, code="previous_response_in_progress", param=_PARAM)
        if ended.output is None:
            msg = f"Response '{response_id(request_id)}' has no answer to go on with."
            raise PermanentError(msg, code="previous_response_without_answer", param=_PARAM)
        return routed, ended


def _refuse_strange_outputs(given: GenerationRequest, ended: RequestEnded) -> None:
    for called, where in given.answered.items():
        if ended.called is None or called != call_id(ended.request_id):
            msg = f"'{where}' names no call of the previous response."
            raise PermanentError(msg, code="invalid_value", param=where)


def _not_found(request_id: str) -> PermanentError:
    msg = f"Previous response with id '{response_id(request_id)}' not found."
    return PermanentError(msg, code="previous_response_not_found", param=_PARAM)
