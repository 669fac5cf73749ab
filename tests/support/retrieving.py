"""Reads server-sent events, and asks for responses by their ids."""

from __future__ import annotations

import json
from typing import Any

import httpx

END_EVENTS = ("response.completed", "response.incomplete", "response.failed")


async def create(http: httpx.AsyncClient, **body: Any) -> list[dict[str, Any]]:
    """The events of a new streamed response."""
    return await _events(http, "POST", "responses", json={"model": "echo", "stream": True, **body})


async def follow(http: httpx.AsyncClient, response_id: str, **query: Any) -> list[dict[str, Any]]:
    """The events of one that exists."""
    asked = {"stream": "true", **query}
    return await _events(http, "GET", f"responses/{response_id}", params=asked)


async def _events(
    http: httpx.AsyncClient, method: str, path: str, **given: Any
) -> list[dict[str, Any]]:
    async with http.stream(method, path, **given) as answer:
        if answer.status_code != httpx.codes.OK:
            raise AssertionError((answer.status_code, await answer.aread()))
        return [json.loads(line[6:]) async for line in answer.aiter_lines() if line[:6] == "data: "]


def completed(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The response that the last event carries."""
    assert events[-1]["type"] in END_EVENTS
    response: dict[str, Any] = events[-1]["response"]
    return response
