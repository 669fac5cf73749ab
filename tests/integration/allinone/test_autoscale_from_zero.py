"""A whole stack that has no worker until somebody asks."""

import asyncio

import httpx
from tests.support.stack import Stack


def workers(stack: Stack) -> set[str]:
    return {name for name in stack.ready["pids"] if name.startswith("worker-")}


async def test_the_first_request_brings_the_first_worker(tmp_path) -> None:
    """Ready means that the models are known and a request is taken, with no worker running.

    The answer comes from the worker that the request has brought; without work it goes again.
    """
    quick = {"PENSTOCK_SCALE_COOLDOWN_S": "2", "PENSTOCK_ECHO_MODEL": "1"}
    with Stack(tmp_path / "data", workers="auto:2", env=quick) as stack:
        assert not workers(stack)
        ready = stack.ready
        async with httpx.AsyncClient(
            base_url=ready["http"],
            headers={"Authorization": f"Bearer {ready['api_key']}"},
            timeout=90,
        ) as http:
            listed = (await http.get("/v1/models")).json()
            assert {"echo", "penstock-small"} <= {model["id"] for model in listed["data"]}
            answer = await http.post("/v1/responses", json={"model": "echo", "input": "Hello"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["output"][0]["content"][0]["text"] == "Hello"
        assert workers(stack) == {"worker-1"}
        async with asyncio.timeout(60):
            while workers(stack):
                await asyncio.sleep(0.1)
