"""The OpenAPI document against the edge that serves it: Schemathesis, seeded.

The document is made from the code, so what is tested here is the half that could differ: the
schemas of what is parsed by hand, and those of the answers.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
from collections.abc import Callable
from typing import Any, Final

import httpx
import jsonschema
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.specs.openapi.definitions import OPENAPI_31
from tests.support.realtime import Edge, StartEdge
from tests.support.realtime_backend import PRICE, Backend, echo, new_run

from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.models import EmbeddingOptions, ModelKind, ModelRecord
from penstock_shared.contracts.streams import Bucket
from penstock_shared.runtime.kv import put

CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
RELATIONS: Final = (
    # What no schema of one parameter says: (code, what the field's name begins with).
    ("empty_input", "input"),
    ("empty_input", "messages"),
    ("invalid_value", "background"),  # needs store
    ("previous_response_not_found", "previous_response_id"),
    ("invalid_value", "starting_after"),  # needs stream
    ("invalid_value", "after"),  # one of the items
    ("invalid_value", "stream_options"),  # needs stream
    ("invalid_value", "max_tokens"),  # not beside max_completion_tokens
    ("invalid_value", "tool_choice"),  # names one of tools
    ("invalid_value", "tools"),  # no two of one name
    ("invalid_value", "input"),  # an output's call stands before it
    ("invalid_value", "messages"),
    ("invalid_value", "dimensions"),  # as the model has them
    ("unsupported_parameter", "stream_options.include_obfuscation"),
    ("schema_too_deep", ""),
    ("schema_too_large", ""),
)
OPERATIONS: Final = (
    "createResponse",
    "retrieveResponse",
    "deleteResponse",
    "cancelResponse",
    "listInputItems",
    "giveFeedback",
    "createChatCompletion",
    "createEmbeddings",
    "listModels",
    "retrieveModel",
)
CONFIG: Final = SchemathesisConfig.from_dict({"generation": {"with-security-parameters": False}})
SEED: Final = int(os.environ.get("PENSTOCK_FAULT_SEED", "20261121"))


@pytest.fixture
async def described(start_edge: StartEdge) -> Edge:
    """An edge with a model of each kind."""
    edge = await start_edge(per_minute=10_000_000)
    vectors = ModelRecord(
        name="vectors",
        version="1",
        parameters=0,
        context_tokens=512,
        price=PRICE,
        kind=ModelKind.EMBEDDING,
        embedding=EmbeddingOptions(dimensions=2),
    )
    await put(edge.broker, Bucket.MODELS, "vectors", vectors.model_dump_json().encode())
    edge.backend.generate = answer
    return edge


async def answer(backend: Backend, job: Job, prompt: str) -> None:
    """Vectors, or an echo."""
    if job.model != "vectors":
        await echo(backend, job, prompt)
        return
    vector = base64.b64encode(struct.pack("<2f", 0.6, 0.8)).decode()
    texts = len(prompt.split("\n"))
    body = json.dumps({"dimensions": 2, "embeddings": [vector] * texts})
    await backend.end(job, new_run(), [body])


async def document(edge: Edge) -> Any:
    async with httpx.AsyncClient() as http:
        found = await http.get(edge.base_url.replace("/v1", "/openapi.json"))
    assert found.status_code == 200
    assert found.headers["x-content-type-options"] == "nosniff"
    return found.json()


async def test_the_document_is_openapi_and_describes_every_route(edge: Edge) -> None:
    """Valid against the official meta-schema; no path is left without its description."""
    told = await document(edge)
    jsonschema.Draft202012Validator(OPENAPI_31).validate(told)
    operations = [one for path in told["paths"].values() for one in path.values()]
    assert all("operationId" in one for one in operations), told["paths"].keys()
    assert set(OPERATIONS) <= {one["operationId"] for one in operations}


async def made(edge: Edge) -> str:
    async with edge.client() as client:
        return str((await client.responses.create(input="to be looked at")).id)


def judge(case: Any, answer: Any, *, positive: bool) -> None:
    """Every check that makes sense, and that what the schema allows is accepted."""
    checks = CHECKS if positive else [*CHECKS, negative_data_rejection]
    case.validate_response(answer, checks=checks)
    if positive and answer.status_code in {400, 413, 422}:
        error = answer.json()["error"]
        param = error["param"] or ""
        known = any(error["code"] == code and param.startswith(name) for code, name in RELATIONS)
        assert known, (error, case.body, case.query)


def usable(case: Any, number: int, edge_made: str) -> None:
    """Names that exist, most of the time: a random one shows the 404 only."""
    if isinstance(case.body, dict):
        for name, value in case.body.items():
            if isinstance(value, float) and value.is_integer():
                case.body[name] = int(value)  # JSON Schema calls 1.0 an integer, the edge does not
        if number % 4 and "score" not in case.body:
            case.body["model"] = "auto"
    for name in {"response_id", "answer_id"} & case.path_parameters.keys():
        if number % 2:
            case.path_parameters[name] = edge_made
    if "model" in case.path_parameters and number % 2:
        case.path_parameters["model"] = "echo"


def run(edge: Edge, told: Any, operation_id: str, made_id: str, examples: int) -> set[int]:
    """Send what Schemathesis makes of one operation; returns the statuses that were seen."""
    schema = schemathesis.openapi.from_dict(told, config=CONFIG)
    operation = schema.find_operation_by_id(operation_id)
    seen: set[int] = set()
    headers = {"authorization": f"Bearer {edge.account.secret}"}
    base = edge.base_url.removesuffix("/v1")

    def attempt(mode: schemathesis.GenerationMode) -> Callable[[], None]:
        positive = mode is schemathesis.GenerationMode.POSITIVE
        numbers = iter(range(10**9))

        @seed(SEED)
        @settings(
            max_examples=examples,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def body(case: Any) -> None:
            if positive:
                usable(case, next(numbers), made_id)
            with requests.Session() as session:
                found = case.call(base_url=base, session=session, headers=headers, timeout=30)
            seen.add(found.status_code)
            judge(case, found, positive=positive)

        return body

    attempt(schemathesis.GenerationMode.POSITIVE)()
    if operation.body or operation.query or operation.path_parameters:
        attempt(schemathesis.GenerationMode.NEGATIVE)()
    return seen


@pytest.mark.parametrize("operation_id", OPERATIONS)
async def test_what_the_document_says_is_what_is_served(described: Edge, operation_id: str) -> None:
    """What it allows is accepted, what it does not is refused, and answers are as it says."""
    print("seed", SEED)
    told, made_id = await document(described), await made(described)
    seen = await asyncio.to_thread(run, described, told, operation_id, made_id, 15)
    assert 200 in seen, seen


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("operation_id", OPERATIONS)
async def test_what_the_document_says_is_what_is_served_in_depth(
    described: Edge, operation_id: str
) -> None:
    """The same with many more examples."""
    print("seed", SEED)
    told, made_id = await document(described), await made(described)
    seen = await asyncio.to_thread(run, described, told, operation_id, made_id, 400)
    assert 200 in seen, seen
