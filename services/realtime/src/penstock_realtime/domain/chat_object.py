"""The `chat.completion` object of OpenAI's Chat Completions API."""

from __future__ import annotations

from typing import Any, Final, Literal

from penstock_realtime.domain.response_object import ResponseHead, call_id
from penstock_realtime.errors import FailedError
from penstock_shared.contracts.requests import Status
from penstock_shared.contracts.responses import FinalFrame
from penstock_shared.contracts.usage import Usage

_FINISH: Final = {
    Status.COMPLETED: "stop",
    Status.INCOMPLETE: "length",
    # The API has no word for it; "stop" would pass a torso off as the whole answer.
    Status.CANCELLED: "length",
}

_OWN_NAMES: Final = {"input": "messages", "output_schema": "response_format"}
"""What this API calls the parameters that a worker's errors name."""


COMPLETION_PREFIX: Final = "chatcmpl-"


def completion_id(request_id: str) -> str:
    """How clients of this API see a request id."""
    return f"{COMPLETION_PREFIX}{request_id.replace('-', '')}"


def described(
    head: ResponseHead, kind: Literal["chat.completion", "chat.completion.chunk"]
) -> dict[str, Any]:
    """What every object of one completion says."""
    return {
        "id": completion_id(head.request_id),
        "object": kind,
        "created": int(head.created_at.timestamp()),
        "model": head.model,
        "service_tier": "default",
    }


def completion(head: ResponseHead, final: FinalFrame) -> dict[str, Any]:
    """The whole answer.

    Raises:
        FailedError: the terminal says so; a completion has no place for it.
        ConflictError: the answer is to another request, made with the same idempotency key.
    """
    if final.status is Status.FAILED:
        raise failed(final)
    message: dict[str, Any] = {"role": "assistant", "content": final.text, "refusal": None}
    if final.called is not None:
        calls = [tool_call(head, final.called, final.text)]
        message |= {"content": None, "tool_calls": calls}
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": finish_reason(final),
    }
    return {
        **described(head, "chat.completion"),
        "model": final.model,
        "metadata": head.echo.get("metadata", {}),
        "choices": [choice],
        "usage": usage_object(final.usage),
    }


def failed(final: FinalFrame) -> FailedError:
    """The terminal's own error, about this API's own parameters."""
    error = final.error
    if error is not None and error.param in _OWN_NAMES:
        error = error.model_copy(update={"param": _OWN_NAMES[error.param]})
    return FailedError(final.model_copy(update={"error": error}))


def tool_call(head: ResponseHead, called: int, arguments: str) -> dict[str, Any]:
    """The call that the answer is.

    Raises:
        ConflictError: the answer is to another request, made with the same idempotency key.
    """
    function = {"name": head.function_name(called), "arguments": arguments}
    return {"id": call_id(head.request_id), "type": "function", "function": function}


def finish_reason(final: FinalFrame) -> str:
    """Why the text ends where it ends; the answer has not failed."""
    whole = final.status is Status.COMPLETED
    return "tool_calls" if whole and final.called is not None else _FINISH[final.status]


def usage_object(usage: Usage) -> dict[str, Any]:
    """The tokens; nothing is cached, predicted, spoken or thought."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
