"""What a WebSocket costs without sessions, numbers, buffers or resumption: the peer of the edge.

Starlette, on the same server with the same options. `/echo` sends messages back; `/push` sends
`<frames> <bytes>` frames when told so; `/nats?subject` forwards what is published there.
"""

from __future__ import annotations

import asyncio
import os

import uvloop
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from penstock_realtime.http.protocol import server_options
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.http_server import HttpServer


async def echo(websocket: WebSocket) -> None:
    """Send every message back."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        return


async def push(websocket: WebSocket) -> None:
    """Send frames from memory, as many as asked for."""
    await websocket.accept()
    try:
        while True:
            frames, size = map(int, (await websocket.receive_text()).split())
            text = "x" * size
            for _ in range(frames):
                await websocket.send_text(text)
    except WebSocketDisconnect:
        return


class Forwarding:
    """What is published on a subject, to the socket that asked for it."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def __call__(self, websocket: WebSocket) -> None:
        """One socket and one subscription, as the nats-py documentation has it."""
        await websocket.accept()
        subscription = await self._broker.client.subscribe(websocket.url.query)
        await self._broker.client.flush()
        await websocket.send_text("subscribed")
        try:
            async for msg in subscription.messages:
                await websocket.send_text(msg.data.decode())
        except (WebSocketDisconnect, RuntimeError):
            return
        finally:
            await subscription.unsubscribe()


async def serve() -> None:
    """Serve until the process is stopped."""
    broker = await Broker.connect(os.environ["BENCH_NATS_URL"], name="plain")
    forwarding = Forwarding(broker)

    async def forward(websocket: WebSocket) -> None:
        await forwarding(websocket)

    routes = [
        WebSocketRoute("/echo", echo),
        WebSocketRoute("/push", push),
        WebSocketRoute("/nats", forward),
    ]
    server = HttpServer(
        Starlette(routes=routes),
        "127.0.0.1",
        int(os.environ["BENCH_PORT"]),
        **server_options(32 * 1024, 1024 * 1024),
    )
    await server.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())
