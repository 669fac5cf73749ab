"""The application that every ASGI server serves when they are compared: no framework, no imports.

Over HTTP it answers 100 bytes of JSON. Over WebSocket it sends a text back, or, told to
`push <frames> <bytes>`, so many frames of that size.
"""

from __future__ import annotations

from typing import Any

BODY = b'{"ok":true,"pad":"' + b"x" * 80 + b'"}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """ASGI."""
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": BODY})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await _answer(message["text"], send)


async def _answer(text: str, send: Any) -> None:
    if not text.startswith("push "):
        await send({"type": "websocket.send", "text": text})
        return
    _, frames, size = text.split()
    pushed = {"type": "websocket.send", "text": "x" * int(size)}
    for _ in range(int(frames)):
        await send(pushed)
