"""`penstock audit`, as an operator and as an auditor without the stack."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.audit_service import Publish, StartAudit, covered

from penstock_shared.contracts.streams import EVENTS
from penstock_shared.runtime.broker import Broker


async def penstock(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `penstock audit …` as a process of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "penstock", "audit", *words],
        env={**kept, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_verify_and_checkpoint(
    broker: Broker,
    nats_url: str,
    start_audit: StartAudit,
    publish: Publish,
    state_dir: Path,
    tmp_path: Path,
) -> None:
    """From a live stack to an auditor's copy: verified, kept, compared, tampered with (I5)."""
    stack = {"PENSTOCK_NATS_URL": nats_url, "PENSTOCK_AUDIT_DIR": str(state_dir)}
    async with start_audit():
        await publish(300)
        await covered(state_dir, 300)
        kept = await penstock("checkpoint", **stack)
        assert kept.returncode == 0, kept.stderr
        (tmp_path / "kept.txt").write_text(kept.stdout)
        await publish(100)
        live = await penstock("verify", "--against-events", "--json", **stack)
    assert live.returncode == 0, live.stderr + live.stdout
    document = json.loads(live.stdout)
    assert document["verified"] is True
    assert document["tree_size"] >= 400
    assert document["events_last_seq"] >= document["events_seq"] - 2

    copy = tmp_path / "copy"
    shutil.copytree(state_dir / "log", copy)
    arguments = ("--log", str(copy), "--key", (state_dir / "audit.pub").read_text().strip())
    offline = await penstock("verify", *arguments, "--kept", str(tmp_path / "kept.txt"))
    assert offline.returncode == 0, offline.stderr
    assert offline.stdout.rstrip().endswith("verified")

    segment = copy / "events/000"
    segment.write_bytes(segment.read_bytes().replace(b'{"n":77}', b'{"n":78}'))
    told = await penstock("verify", *arguments)
    assert told.returncode == 1
    assert "NOT verified: Entry " in told.stderr
    assert "stored event was altered" in told.stderr
    as_json = await penstock("verify", *arguments, "--json")
    assert (as_json.returncode, json.loads(as_json.stdout)["verified"]) == (1, False)


async def test_verify_against_events_that_went_on(
    broker: Broker,
    nats_url: str,
    start_audit: StartAudit,
    publish: Publish,
    state_dir: Path,
) -> None:
    """Audit is down and EVENTS goes on; or EVENTS has a hole: both are found (I5)."""
    stack = {"PENSTOCK_NATS_URL": nats_url, "PENSTOCK_AUDIT_DIR": str(state_dir)}
    async with start_audit():
        await publish(20)
        await covered(state_dir, 20)
    await publish(5)
    behind = await penstock("verify", "--against-events", "--wait", "0.2", **stack)
    assert behind.returncode == 1
    assert "EVENTS goes on to" in behind.stderr
    await broker.jetstream.delete_msg(EVENTS, 5)
    holed = await penstock("verify", "--against-events", "--wait", "0.2", **stack)
    assert holed.returncode == 1
    assert "EVENTS lacks 1" in holed.stderr


async def test_sentences_for_operators(nats_url: str, tmp_path: Path) -> None:
    """No log, no audit service: a sentence and what to do, no trace."""
    nothing = await penstock("verify", "--log", str(tmp_path))
    assert nothing.returncode == 1
    assert "no audit log" in nothing.stderr
    assert "Traceback" not in nothing.stderr
    unknown = await penstock("verify", "--log", str(tmp_path), "--key", "nonsense")
    assert unknown.returncode == 1
    assert "verifier key" in unknown.stderr
