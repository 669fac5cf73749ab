"""One whole stack for the end-to-end tests of an xdist worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from openai import AsyncOpenAI
from tests.support.minilm import LONGEST, convert, original
from tests.support.operator import penstock
from tests.support.stack import Stack

ENCODER = "all-minilm-l6-v2"
ECHO = {"PENSTOCK_ECHO_MODEL": "1", "PENSTOCK_ECHO_TOKENS_PER_S": "500"}


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """All three servers and all five services; the echo model beside the real ones."""
    with Stack(tmp_path_factory.mktemp("stack") / "data", env=ECHO) as up:
        yield up


@pytest.fixture(scope="session")
def encoder(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real sentence encoder, registered as an operator does; its folder has the model's name."""
    folder = tmp_path_factory.mktemp("encoder") / ENCODER
    convert(original(), folder)
    penstock(stack, "models", "add", str(folder), "--context-tokens", str(LONGEST))
    return folder


def openai_client(stack: Stack, api_key: str | None = None) -> AsyncOpenAI:
    """The official SDK, told nothing but another base URL and key."""
    ready = stack.ready
    base = ready["http"] + "/v1"
    return AsyncOpenAI(
        base_url=base,
        websocket_base_url=base.replace("http", "ws", 1),
        api_key=api_key or ready["api_key"],
        max_retries=0,
        timeout=60,
    )


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[AsyncOpenAI]:
    made = openai_client(stack)
    yield made
    await made.close()
