"""A stand-in for a Penstock service: serves its ops port, drains on SIGTERM, and keeps a diary.

As `billing` it also answers the two administrative requests that the bootstrap makes.
"""

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import nats

from penstock_shared.contracts import subjects
from penstock_shared.contracts.account_commands import CreatedKey
from penstock_shared.contracts.accounts import KeyRecord, TenantRecord

INSTANCE = os.environ["PENSTOCK_INSTANCE"]
SERVICE = INSTANCE.partition("-")[0]
DIARY = Path(os.environ["DUMMY_DIARY"])
SECRET = "psk_dummy"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
TENANT = TenantRecord(tenant="demo", name="Demo", created_at=NOW)
KEY = KeyRecord(key_id="key_1", tenant="demo", name="bootstrap", hint="ummy", created_at=NOW)
ANSWERS = {
    subjects.accounts("create-tenant"): TENANT,
    subjects.accounts("create-key"): CreatedKey(key=KEY, secret=SECRET),
}
EXISTS = b'{"error": {"message": "There is one.", "type": "x", "code": "already_exists"}}'


def note(what: str) -> None:
    """Add a line to the diary that all dummies share; one write, so lines never mix."""
    with DIARY.open("a") as diary:
        diary.write(f"{INSTANCE} {what}\n")


def words_in_diary() -> set[str]:
    """What was noted, by this run or one before it."""
    return set(DIARY.read_text().split())


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
    if INSTANCE in os.environ.get("DUMMY_SLOW", "").split(","):
        # A second signal would end the process here, before it has drained.
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
        note("draining")
        await asyncio.sleep(3)
    note("drained")


async def answer_bus() -> None:
    """Answer the bootstrap's requests over the real bus."""
    connection = await nats.connect(os.environ["PENSTOCK_NATS_URL"].split(","))

    known = words_in_diary()

    async def answer(message) -> None:
        if message.subject in known:
            await message.respond(EXISTS)
            return
        known.add(message.subject)
        note(message.subject)
        await message.respond(ANSWERS[message.subject].model_dump_json().encode())

    await connection.subscribe(subjects.EVERY_ACCOUNTS, cb=answer)
    await connection.flush()
    await connection.flush()  # the first PING overtakes nats-py\'s own buffer


def main() -> None:
    """Run as `python -m penstock_<service>`."""
    asyncio.run(serve())
