"""A stand-in for a Penstock service: serves its ops port, drains on SIGTERM, and keeps a diary.

As `billing` it also answers the two administrative requests that the bootstrap makes.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

import nats

INSTANCE = os.environ["PENSTOCK_INSTANCE"]
SERVICE = INSTANCE.partition("-")[0]
DIARY = Path(os.environ["DUMMY_DIARY"])
ANSWERS = {
    "v1.admin.accounts.create_tenant": b'{"ok": true}',
    "v1.admin.accounts.create_key": b'{"ok": true, "key": {"id": "k1"}, "secret": "psk_dummy"}',
}


def note(what: str) -> None:
    """Add a line to the diary that all dummies share; one write, so lines never mix."""
    with DIARY.open("a") as diary:
        diary.write(f"{INSTANCE} {what}\n")


async def answer_ops(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer 200 to whatever is asked."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")
    writer.close()


async def serve() -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if SERVICE == "billing":
        await answer_bus()
    if INSTANCE in os.environ.get("DUMMY_BROKEN", "").split(","):
        sys.exit(f"{INSTANCE} cannot start, and says so")
    ports = {"PENSTOCK_OPS_PORT", "PENSTOCK_HTTP_PORT"} & os.environ.keys()
    for name in ports:
        await asyncio.start_server(answer_ops, "127.0.0.1", int(os.environ[name]))
    note("started")
    await stop.wait()
    note("drained")


async def answer_bus() -> None:
    """Answer the bootstrap's requests over the real bus."""
    connection = await nats.connect(os.environ["PENSTOCK_NATS_URL"].split(","))

    async def answer(message) -> None:
        await message.respond(ANSWERS[message.subject])

    await connection.subscribe("v1.admin.accounts.*", cb=answer)
    await connection.flush()


def main() -> None:
    """Run as `python -m penstock_<service>`."""
    asyncio.run(serve())
