"""What a response was asked, as items of the API.

What the model was given, in order, with all that came before it. A call that was handed in stands
as what the assistant said, and its output without the call's id: that is how both are sealed.
"""

from __future__ import annotations

from typing import Any, Literal

from penstock_realtime.domain.parameters import wrong_value
from penstock_shared.contracts.requests import ChatMessage, Content


def said(content: Content) -> tuple[ChatMessage, ...]:
    """The conversation without the response's own `instructions`."""
    instructed = bool(content.request and content.request.get("instructions"))
    return content.messages[1 if instructed else 0 :]


def input_items(request_id: str, content: Content) -> list[dict[str, Any]]:
    """All of them, in order; an item's id says where it stands."""
    turns = said(content) or tuple(ChatMessage(role="user", content=t) for t in content.texts)
    place = request_id.replace("-", "")
    return [_item(f"{place}_{n}", turn) for n, turn in enumerate(turns)]


def _item(place: str, turn: ChatMessage) -> dict[str, Any]:
    if turn.role == "tool":
        return {
            "id": f"fco_{place}",
            "type": "function_call_output",
            "call_id": None,
            "output": turn.content,
            "status": "completed",
        }
    part: dict[str, Any] = {"type": "input_text", "text": turn.content}
    if turn.role == "assistant":
        part = {"type": "output_text", "text": turn.content, "annotations": [], "logprobs": []}
    return {
        "id": f"msg_{place}",
        "type": "message",
        "role": turn.role,
        "status": "completed",
        "content": [part],
    }


def page(
    items: list[dict[str, Any]], *, after: str | None, limit: int, order: Literal["asc", "desc"]
) -> dict[str, Any]:
    """A list as the API pages it.

    Raises:
        PermanentError: none of the items is called `after`.
    """
    ordered = items if order == "asc" else items[::-1]
    if after is not None:
        ids = [item["id"] for item in ordered]
        if after not in ids:
            raise wrong_value("after", "the id of one of the response's input items")
        ordered = ordered[ids.index(after) + 1 :]
    data = ordered[:limit]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
    return {
        "object": "list",
        "data": data,
        "first_id": None,
        "last_id": None,
        **ends,
        "has_more": len(ordered) > limit,
    }
