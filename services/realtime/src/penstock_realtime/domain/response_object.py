"""The `response` object of OpenAI's Responses API."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from penstock_shared.contracts.requests import Sampling, Status
from penstock_shared.contracts.responses import FinalFrame

_NOT_OFFERED: Final[dict[str, Any]] = {
    "background": False,
    "parallel_tool_calls": False,
    "previous_response_id": None,
    "service_tier": "default",
    "text": {"format": {"type": "text"}},
    "tool_choice": "none",
    "tools": [],
    "truncation": "disabled",
}
"""Fields that the SDKs expect and that always have the same value here."""


def response_id(request_id: str) -> str:
    """How clients see a request id."""
    return f"resp_{request_id.replace('-', '')}"


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What is known of a response from its acceptance on."""

    request_id: str
    model: str
    created_at: datetime
    sampling: Sampling = field(default_factory=Sampling)
    instructions: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    safety_identifier: str | None = None
    store: bool = True

    @property
    def item_id(self) -> str:
        """The id of the one message that a response has."""
        return f"msg_{self.request_id.replace('-', '')}"

    def in_progress(self) -> dict[str, Any]:
        """The response while it runs."""
        return self.response("in_progress")

    def part(self, text: str) -> dict[str, Any]:
        """The message's one content part."""
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def message(self, text: str, status: str) -> dict[str, Any]:
        """The message; without content while it is in progress."""
        content = [] if status == "in_progress" else [self.part(text)]
        return {
            "id": self.item_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def response(self, status: str) -> dict[str, Any]:
        """Every field, none of them filled by an answer."""
        return {
            "id": response_id(self.request_id),
            "object": "response",
            "created_at": int(self.created_at.timestamp()),
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": self.instructions,
            "max_output_tokens": self.sampling.max_output_tokens,
            "metadata": self.metadata,
            "model": self.model,
            "output": [],
            "safety_identifier": self.safety_identifier,
            "store": self.store,
            "temperature": self.sampling.temperature,
            "top_p": self.sampling.top_p,
            "usage": None,
            **_NOT_OFFERED,
        }


def finished(head: ResponseHead, final: FinalFrame) -> dict[str, Any]:
    """The response once its terminal fact is known."""
    response = head.response(final.status.value)
    response["model"] = final.model
    if final.text or final.status is not Status.FAILED:
        done = "completed" if final.status is Status.COMPLETED else "incomplete"
        response["output"] = [head.message(final.text, done)]
    if final.status is Status.INCOMPLETE:
        response["incomplete_details"] = {"reason": final.reason}
    if final.status is Status.FAILED:
        error = final.error
        response["error"] = {
            "code": error.code if error else "server_error",
            "message": error.message if error else f"The request has failed ({final.reason}).",
            "type": error.type if error else None,
            "param": error.param if error else None,
        }
    usage = final.usage
    response["usage"] = {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    return response
