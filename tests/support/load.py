"""Clients that keep asking while the stack is being broken, and remember what they were told."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import nats
import nats.errors
import websockets
from tests.support.stack import Stack
from websockets.exceptions import WebSocketException

from penstock_shared.contracts.ids import keyed_request_id, parse_request_id
from penstock_shared.runtime.clock import IdSource, SystemClock

ATTEMPT_TIMEOUT_S: Final = 30.0
IDS: Final = IdSource(SystemClock())


@dataclass
class Told:
    """What clients were told: the promises that must hold afterwards."""

    accepted: set[str] = field(default_factory=set)
    answers: dict[str, str] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Load:
    """Sends requests through every door. Each client retries with its own idempotency key."""

    def __init__(self, stack: Stack, seed: int) -> None:
        ready = stack.ready
        self._http_url = ready["http"]
        self._nats_url = ready["nats"]
        self._tenant = ready["tenant"]
        self._key = ready["api_key"]
        self._rng = random.Random(seed)
        self.told = Told()
        self.running = 0
        """Requests that wait for their answer right now."""

    async def run(self, count: int, concurrency: int) -> None:
        """Send `count` requests, at most `concurrency` at once, until each was answered."""
        room = asyncio.Semaphore(concurrency)
        async with httpx.AsyncClient(
            base_url=self._http_url,
            timeout=ATTEMPT_TIMEOUT_S,
            headers={"Authorization": f"Bearer {self._key}"},
            limits=httpx.Limits(max_connections=concurrency),
        ) as http:

            async def one(n: int, door: str, words: int) -> None:
                async with room:
                    self.running += 1
                    await self._until_answered(http, n, door, words)
                    self.running -= 1

            doors = [self._rng.choice(("plain", "sse", "websocket", "nats")) for _ in range(count)]
            lengths = [self._rng.randint(3, 40) for _ in range(count)]
            await asyncio.gather(
                *(
                    one(n, door, words)
                    for n, (door, words) in enumerate(zip(doors, lengths, strict=True))
                )
            )

    async def _until_answered(self, http: httpx.AsyncClient, n: int, door: str, words: int) -> None:
        text = f"r{n} " + " ".join(f"w{k}" for k in range(words))
        key = f"load-{n}"
        ask = getattr(self, f"_{door}")
        async with asyncio.timeout(120):
            while True:
                try:
                    outcome = await ask(http, key, text)
                except (
                    httpx.HTTPError,
                    OSError,
                    TimeoutError,
                    nats.errors.Error,
                    WebSocketException,
                    json.JSONDecodeError,
                ) as error:
                    outcome = type(error).__name__
                self.told.outcomes[f"{door}:{outcome}"] += 1
                if outcome == "done":
                    return
                await asyncio.sleep(0.2)

    def _completed(self, request_id: str, text: str, expected: str) -> str:
        request_id = parse_request_id(request_id)
        before = self.told.answers.setdefault(request_id, text)
        if text != expected or before != text:
            self.told.wrong.append(f"{request_id}: {text[:60]!r}, expected {expected[:60]!r}")
        return "done"

    def _judge(self, response: dict[str, Any], expected: str) -> str:
        """A completed answer must be the text; a failed one is final, an error but no answer."""
        if response["status"] == "completed":
            text = "".join(part["text"] for item in response["output"] for part in item["content"])
            return self._completed(response["id"], text, expected)
        if response["status"] in {"failed", "incomplete", "cancelled"}:
            self.told.outcomes[f"ended:{response['status']}"] += 1
            return "done"
        return str(response["status"])

    async def _plain(self, http: httpx.AsyncClient, key: str, text: str) -> str:
        answer = await http.post(
            "/v1/responses",
            json={"model": "echo", "input": text},
            headers={"Idempotency-Key": key},
        )
        if answer.status_code != 200:
            return str(answer.status_code)
        body = answer.json()
        self.told.accepted.add(parse_request_id(body["id"]))
        return self._judge(body, text)

    async def _sse(self, http: httpx.AsyncClient, key: str, text: str) -> str:
        request = {"model": "echo", "input": text, "stream": True}
        async with http.stream(
            "POST", "/v1/responses", json=request, headers={"Idempotency-Key": key}
        ) as answer:
            if answer.status_code != 200:
                return str(answer.status_code)
            events = (json.loads(x[6:]) async for x in answer.aiter_lines() if x[:6] == "data: ")
            return await self._follow(events, text)

    async def _websocket(self, http: httpx.AsyncClient, key: str, text: str) -> str:
        """A WebSocket has no idempotency key: each attempt is a request of its own."""
        del http, key
        url = self._http_url.replace("http", "ws", 1) + "/v1/responses"
        async with websockets.connect(
            url,
            additional_headers={"Authorization": f"Bearer {self._key}"},
            open_timeout=5,
            close_timeout=1,
        ) as socket:
            create = {"type": "response.create", "model": "echo", "input": text}
            await socket.send(json.dumps(create))
            async with asyncio.timeout(ATTEMPT_TIMEOUT_S):
                return await self._follow((json.loads(x) async for x in socket), text)

    async def _follow(self, events: Any, text: str) -> str:
        seen, number = "", 0
        async for event in events:
            if event["type"] == "error":
                return "error event"
            first = event.get("first_sequence_number", event["sequence_number"])
            if first != number:
                self.told.wrong.append(f"sequence {first}, expected {number}")
            number = event["sequence_number"] + 1
            if event["type"] == "response.created":
                self.told.accepted.add(parse_request_id(event["response"]["id"]))
            elif event["type"] == "response.output_text.delta":
                seen += event["delta"]
            elif event["type"] in {"response.completed", "response.failed", "response.incomplete"}:
                if event["type"] == "response.completed" and seen != text:
                    self.told.wrong.append(f"deltas {seen[:60]!r}, expected {text[:60]!r}")
                return self._judge(event["response"], text)
        return "cut off"

    async def _nats(self, http: httpx.AsyncClient, key: str, text: str) -> str:
        """Submit, then ask by id until it has ended: deltas may be lost with the broker."""
        del http
        client = await nats.connect(
            self._nats_url,
            token=self._key,
            inbox_prefix=f"_INBOX_{self._tenant}".encode(),
            allow_reconnect=False,
            connect_timeout=3,
            error_cb=_quiet,
        )
        try:
            submitted = await client.request(
                f"v1.{self._tenant}.requests.submit",
                json.dumps({"model": "echo", "input": text}).encode(),
                timeout=5,
                headers={
                    "ce-specversion": "1.0",
                    "ce-id": key,
                    "ce-source": "/load",
                    "ce-type": "penstock.request.submit.v1",
                },
            )
            reply = json.loads(submitted.data)["reply"]
            if reply["status"] != "accepted":
                return str(reply["http_status"])
            request_id = keyed_request_id(self._tenant, key)
            self.told.accepted.add(request_id)
            return await self._poll(client, request_id, text)
        finally:
            await client.close()

    async def _poll(self, client: Any, request_id: str, text: str) -> str:
        question = json.dumps({"request_id": request_id}).encode()
        async with asyncio.timeout(ATTEMPT_TIMEOUT_S):
            while True:
                subject = f"v1.{self._tenant}.requests.get"
                state = json.loads((await client.request(subject, question, timeout=5)).data)
                if "error" in state:
                    return str(state["error"]["code"])
                if state["status"] == "ended":
                    break
                await asyncio.sleep(0.1)
        if state["final"]["status"] == "completed":
            return self._completed(request_id, state["final"]["text"], text)
        self.told.outcomes[f"ended:{state['final']['status']}"] += 1
        return "done"


async def _quiet(_: Exception) -> None:
    """Broken connections are what the load is about."""
