"""The `response` object of OpenAI's Responses API."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from penstock_shared.contracts.errors import ConflictError, PermanentError
from penstock_shared.contracts.requests import Status
from penstock_shared.contracts.responses import FinalFrame

_DEFAULTS: Final[dict[str, Any]] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 0.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
"""What the response object says of parameters that the client did not give."""


def response_id(request_id: str) -> str:
    """How clients see a request id."""
    return f"resp_{request_id.replace('-', '')}"


def call_id(request_id: str) -> str:
    """By which a function's output names the call that it answers: a response has one at most."""
    return f"call_{request_id.replace('-', '')}"


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What is known of a response from its acceptance on."""

    request_id: str
    model: str
    created_at: datetime
    echo: dict[str, Any] = field(default_factory=dict)
    """The client's parameters, as the response object gives them back."""
    tools: tuple[str, ...] = ()
    """The functions that may be called, by name, in the order of `Content.tools`."""

    @property
    def item_id(self) -> str:
        """The id of the message, where the answer is one."""
        return f"msg_{self.request_id.replace('-', '')}"

    @property
    def call_item_id(self) -> str:
        """The id of the function call, where the answer is one."""
        return f"fc_{self.request_id.replace('-', '')}"

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

    def function_call(self, name: str, arguments: str, status: str) -> dict[str, Any]:
        """The function call; its arguments come while it is in progress, so they are "" then."""
        return {
            "id": self.call_item_id,
            "type": "function_call",
            "call_id": call_id(self.request_id),
            "name": name,
            "arguments": arguments,
            "status": status,
        }

    def function_name(self, called: int) -> str:
        """The function that an answer calls.

        Raises:
            ConflictError: the answer is to another request, made with the same idempotency key.
        """
        if called < len(self.tools):
            return self.tools[called]
        msg = "The answer calls a function that this request does not have: use a key of its own."
        raise ConflictError(msg, code="idempotency_key_reused", param="Idempotency-Key")

    def output(self, final: FinalFrame) -> dict[str, Any]:
        """The one output item of an answer: a function call or a message."""
        status = "completed" if final.status is Status.COMPLETED else "incomplete"
        if final.called is not None:
            return self.function_call(self.function_name(final.called), final.text, status)
        return self.message(final.text, status)

    def response(self, status: str) -> dict[str, Any]:
        """Every field, none of them filled by an answer."""
        return {
            **_DEFAULTS,
            **self.echo,
            "id": response_id(self.request_id),
            "object": "response",
            "created_at": int(self.created_at.timestamp()),
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": self.model,
            "output": [],
            "usage": None,
        }


def finished(head: ResponseHead, final: FinalFrame) -> dict[str, Any]:
    """The response once its terminal fact is known."""
    response = head.response(final.status.value)
    response["model"] = final.model
    if final.text or final.status is not Status.FAILED:
        response["output"] = [head.output(final)]
    if final.status is Status.INCOMPLETE:
        response["incomplete_details"] = {"reason": final.reason}
    if final.status is Status.FAILED:
        response["error"] = _error(final)
    usage = final.usage
    response["usage"] = {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    return response


def _error(final: FinalFrame) -> dict[str, Any]:
    """The vendor's type has a closed list of codes, so `type` says what exactly it was."""
    error = final.error
    if error is None:
        message = f"The request has failed ({final.reason})."
        return {"code": "server_error", "message": message, "type": None, "param": None}
    asked_wrong = error.type == PermanentError.error_type
    return {
        "code": "invalid_prompt" if asked_wrong else "server_error",
        "message": error.message,
        "type": error.code,
        "param": error.param,
    }
