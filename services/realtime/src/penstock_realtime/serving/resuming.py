"""A response that somebody comes back to: on another connection, on another instance."""

from __future__ import annotations

from penstock_realtime.domain.response_object import ResponseHead
from penstock_realtime.ports import Budget, Policy
from penstock_realtime.serving.following import Following, Sources
from penstock_shared.contracts.errors import ErasedError, NotFoundError
from penstock_shared.contracts.requests import Content, RequestRouted


async def open_content(sources: Sources, routed: RequestRouted) -> Content:
    """What was asked.

    Raises:
        ErasedError: its key was destroyed.
        TransientError: the key that opens it is not there.
    """
    plain = await sources.vault.open(
        routed.tenant, routed.data_subject, routed.request_id, "content", routed.content
    )
    return Content.model_validate_json(plain)


async def open_head(sources: Sources, routed: RequestRouted) -> ResponseHead:
    """The head as it was when the response was accepted: the sealed content has the rest of it.

    Raises:
        TransientError: the key that opens it is not there.
    """
    try:
        content = await open_content(sources, routed)
    except ErasedError:  # what the client asked is gone, and what became of it is not
        return ResponseHead(routed.request_id, routed.model, routed.accepted_at)
    return ResponseHead(
        request_id=routed.request_id,
        model=routed.model,
        created_at=routed.accepted_at,
        echo=content.request or {},
        tools=tuple(tool.name for tool in content.tools),
    )


async def _routed(sources: Sources, tenant: str, request_id: str) -> RequestRouted:
    routed = await sources.facts.routed(tenant, request_id)
    if routed is None:
        raise not_found(request_id)
    return routed


async def reattach(
    sources: Sources,
    tenant: str,
    request_id: str,
    budget: Budget | None = None,
    policy: Policy = Policy.BLOCK,
) -> tuple[ResponseHead, Following]:
    """Listen to a response that was accepted before, and may have ended.

    Raises:
        NotFoundError: this tenant has no such response, or the event log has it no more.
        UnavailableError: the log does not answer.
    """
    feed = await sources.frames.open(tenant, request_id, budget, policy)
    try:
        head = await open_head(sources, await _routed(sources, tenant, request_id))
    except BaseException:
        await feed.close()
        raise
    return head, Following(sources, tenant, request_id, feed)


def not_found(request_id: str) -> NotFoundError:
    """Nothing with this id is the tenant's, whatever it is to others (I8)."""
    msg = f"No response with the id {request_id!r}."
    return NotFoundError(msg, code="response_not_found", param="response_id")
