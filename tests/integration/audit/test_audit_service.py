"""Audit against a real EVENTS: everything is logged, once, in order, and signed (I5)."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from tests.support.audit_service import Publish, StartAudit, covered, eventually, vkey_of

from penstock_audit.adapters.nats_events import CHECKPOINTED
from penstock_audit.comparison import events_position
from penstock_audit.errors import (
    DiskRefusedError,
    EventLogError,
    ForkError,
    LogLockedError,
    VerificationError,
)
from penstock_audit.verification import open_checkpoint, read_checkpoint
from penstock_shared.contracts import subjects
from penstock_shared.contracts.audit import AuditCheckpointed, SignedCheckpoint, checkpointed_id
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.streams import EVENTS
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.provision import provision


async def last_fact(broker: Broker) -> AuditCheckpointed:
    message = await broker.last_message(EVENTS, CHECKPOINTED)
    assert message is not None
    return AuditCheckpointed.model_validate_json(message.data)


async def published_up_to(broker: Broker, size: int) -> None:
    """Wait until a checkpoint over `size` entries is published."""
    async with asyncio.timeout(15):
        while await broker.last_message(EVENTS, CHECKPOINTED) is None:
            await asyncio.sleep(0.02)
        while (await last_fact(broker)).tree_size < size:
            await asyncio.sleep(0.02)


async def test_everything_is_logged(
    broker: Broker, start_audit: StartAudit, publish: Publish, state_dir: Path
) -> None:
    """What was there before the start, and what comes later, in order, signed, published (I5)."""
    await publish(1_500)
    async with start_audit() as app:
        await covered(state_dir, 1_500)
        await publish(700)
        last = (await broker.jetstream.stream_info(EVENTS)).state.last_seq
        verified = await covered(state_dir, last - 1)
        assert app.problems() == []
        tree_size = REGISTRY.get_sample_value("penstock_audit_tree_size")
        assert tree_size is not None
        assert tree_size >= verified.tree_size
    fact = await last_fact(broker)
    assert fact.tree_size == read_checkpoint(state_dir, vkey_of(state_dir)).size
    assert open_checkpoint(fact.checkpoint, vkey_of(state_dir)).root_base64 == fact.root_hash
    assert verified.tree_size <= fact.tree_size


async def test_own_facts_never_trigger_a_checkpoint(
    broker: Broker, start_audit: StartAudit, publish: Publish, state_dir: Path
) -> None:
    """One event makes one checkpoint, and the log is quiet again; the fact joins the next batch."""
    async with start_audit():
        await publish(1)
        await published_up_to(broker, 1)
        await asyncio.sleep(0.3)
        assert (await broker.jetstream.stream_info(EVENTS)).state.last_seq == 2
        await publish(1)
        await published_up_to(broker, 3)
        position = await events_position(broker)
        assert (position.due_seq, position.last_seq) == (3, 4)


async def test_restarts_lose_and_repeat_nothing(
    start_audit: StartAudit, publish: Publish, state_dir: Path
) -> None:
    """Stopped while events pour in, again and again: the log goes on where it was (I5)."""
    for _ in range(4):
        async with start_audit():
            writing = asyncio.create_task(publish(400))
            await asyncio.sleep(0.1)
        await writing
    async with start_audit():
        assert (await covered(state_dir, 1_600)).tree_size >= 1_600


async def test_the_same_event_twice_is_two_entries(
    broker: Broker, start_audit: StartAudit, state_dir: Path
) -> None:
    """EVENTS decides what happened: a repeated message has a sequence, so it has an entry."""
    envelope = Envelope(id="test/same", source="/test", type="test.happened.v1")
    subject = subjects.topic_event("acme", "test", "happened")
    async with start_audit():
        for _ in range(2):
            await broker.publish(subject, b"{}", envelope)
        assert (await covered(state_dir, 2)).tree_size >= 2


async def test_a_consumer_that_disappears(
    broker: Broker, start_audit: StartAudit, publish: Publish, state_dir: Path
) -> None:
    """The reader's consumer is deleted under it: it is made anew, nothing is missing or twice."""
    async with start_audit():
        await publish(300)
        for info in await broker.jetstream.consumers_info(EVENTS):
            await broker.jetstream.delete_consumer(EVENTS, info.name)
        await publish(300)
        assert (await covered(state_dir, 600)).tree_size >= 600


async def test_operators_ask_for_the_checkpoint(
    broker: Broker, start_audit: StartAudit, publish: Publish, state_dir: Path
) -> None:
    """The answer verifies with the public key, whatever the question's payload was."""
    async with start_audit():
        await publish(5)
        await covered(state_dir, 5)
        answer = await broker.request(subjects.audit_checkpoint(), b"?", timeout_s=5)
    signed = SignedCheckpoint.model_validate_json(answer.data)
    assert signed.vkey == vkey_of(state_dir).strip()
    opened = open_checkpoint(signed.checkpoint, signed.vkey)
    assert (opened.size, opened.root_base64) == (signed.tree_size, signed.root_hash)


async def test_the_key_is_private_and_stays(start_audit: StartAudit, state_dir: Path) -> None:
    """Made once, mode 0600; another origin in the settings does not rename the log."""
    async with start_audit():
        pass
    key = state_dir / "audit.key"
    first = (key.read_bytes(), vkey_of(state_dir))
    assert key.stat().st_mode & 0o777 == 0o600
    async with start_audit(audit_origin="another.name/audit"):
        pass
    assert (key.read_bytes(), vkey_of(state_dir)) == first


async def test_a_place_that_cannot_be_used(start_audit: StartAudit, tmp_path: Path) -> None:
    """The state directory lies below a file: a sentence that names it, not a trace."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskRefusedError, match="cannot be used"):
        async with start_audit(state_dir=tmp_path / "file" / "audit"):
            pass


async def test_two_writers_of_one_directory(start_audit: StartAudit) -> None:
    """The second is told that the first is there."""
    async with start_audit():
        with pytest.raises(LogLockedError):
            async with start_audit():
                pass


async def test_two_writers_of_two_copies(
    broker: Broker, start_audit: StartAudit, publish: Publish, state_dir: Path, tmp_path: Path
) -> None:
    """On two machines no lock helps: the checkpoints' subject fences one, and one goes on."""
    async with start_audit():
        await publish(10)
        await covered(state_dir, 10)
    shutil.copytree(state_dir, tmp_path / "copy")
    async with (
        start_audit() as one,
        start_audit(state_dir=tmp_path / "copy", audit_linger_ms=20) as two,
    ):
        async with asyncio.timeout(20):
            while not (one.problems() or two.problems()):
                await publish(10)
                await asyncio.sleep(0.05)
        loser, winner = (one, two) if one.problems() else (two, one)
        assert "Another audit writer" in loser.problems()[0]
        await publish(20)
        last = (await broker.jetstream.stream_info(EVENTS)).state.last_seq
        await covered(winner.settings.state_dir, last - 2)
        await asyncio.sleep(0.2)
        assert winner.problems() == []


async def test_an_older_copy_catches_up_without_a_fork(
    broker: Broker, start_audit: StartAudit, publish: Publish, state_dir: Path, tmp_path: Path
) -> None:
    """Restored from a backup, the log grows into the very tree that was published before (I5)."""
    async with start_audit():
        await publish(100)
        await covered(state_dir, 100)
    shutil.copytree(state_dir, tmp_path / "backup")
    async with start_audit():
        await publish(500)
        await covered(state_dir, 600)
    published = await last_fact(broker)
    async with start_audit(state_dir=tmp_path / "backup"):
        await covered(tmp_path / "backup", published.tree_size)
        await publish(1)
        await covered(tmp_path / "backup", published.tree_size + 1)
    assert (await last_fact(broker)).tree_size > published.tree_size


async def test_a_published_root_that_is_not_ours(
    broker: Broker, start_audit: StartAudit, publish: Publish, state_dir: Path
) -> None:
    """A forged checkpoint in EVENTS, or a forged log: audit refuses to go on, and says so."""
    async with start_audit():
        await publish(10)
        await covered(state_dir, 10)
    fact = await last_fact(broker)
    forged = fact.model_copy(update={"root_hash": "A" * 43 + "="})
    envelope = Envelope(id=checkpointed_id(forged), source="/test", type=AuditCheckpointed.TYPE)
    await broker.publish(CHECKPOINTED, forged.model_dump_json().encode(), envelope)
    with pytest.raises(ForkError):
        async with start_audit():
            pass


async def test_a_hole_in_events_stops_the_log(
    broker: Broker, start_audit: StartAudit, publish: Publish, state_dir: Path
) -> None:
    """A deleted event is never skipped in silence: audit stops before it and says which (I5)."""
    await publish(20)
    await broker.jetstream.delete_msg(EVENTS, 13)
    async with start_audit() as app:
        await eventually(lambda: any("lacks 13" in problem for problem in app.problems()))
        assert (await covered(state_dir, 12)).tree_size == 12
    with pytest.raises(VerificationError, match="lacks 1"):
        await events_position(broker)


async def test_an_event_log_that_begins_anew(
    broker: Broker, start_audit: StartAudit, publish: Publish, state_dir: Path
) -> None:
    """EVENTS was lost, or replaced by another: the old log is not continued with it."""
    await publish(20)
    async with start_audit():
        await covered(state_dir, 20)
    await broker.jetstream.delete_stream(EVENTS)
    await provision(broker, 1)
    with pytest.raises(EventLogError, match="lost events"):
        async with start_audit():
            pass
    for n in range(30):
        subject = subjects.topic_event("acme", "other", "happened")
        envelope = Envelope(id=f"other/{n}", source="/test", type="test.happened.v1")
        await broker.publish(subject, b"other", envelope)
    with pytest.raises(EventLogError, match="another message"):
        async with start_audit():
            pass
