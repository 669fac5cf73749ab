"""Load for the edge: answers that come in bursts, and clients that ask for a few at a time."""

from __future__ import annotations

import asyncio
import os
import random

from tests.support.realtime_backend import Backend, new_run, split
from tests.support.resuming_client import ResumingClient, Seen
from tests.support.worker_rig import seeded

from penstock_shared.contracts.jobs import Job

_SIDE_BY_SIDE = 4
_MOST_WORDS = 150
_WORDS = ("salt", "tide", "oak", "Übermut", "水車", "gear", "weir", "🙂", "sluice")


def chosen_rng() -> random.Random:
    """From `PENSTOCK_FAULT_SEED`, or from a seed of its own that is printed."""
    given = os.environ.get("PENSTOCK_FAULT_SEED")
    return seeded(int(given or random.SystemRandom().getrandbits(31)))


async def trickle(backend: Backend, job: Job, prompt: str) -> None:
    """Echo in bursts, for up to a second or so."""
    run, pieces = new_run(), split(prompt)
    rng = random.Random(prompt)
    for n, piece in enumerate(pieces):
        if rng.random() < 0.1:
            await asyncio.sleep(rng.uniform(0, 0.06))
        await backend.delta(job, run, n, piece)
    await backend.end(job, run, pieces)


async def ask_all(client: ResumingClient, rng: random.Random, count: int) -> list[Seen]:
    """So many responses, a few side by side at a time, on one session."""
    asked: list[Seen] = []
    for start in range(0, count, _SIDE_BY_SIDE):
        names = [f"s{n}" for n in range(start, min(start + _SIDE_BY_SIDE, count))]
        asked += await client.ask({name: _prompt(rng) for name in names})
    return asked


def _prompt(rng: random.Random) -> str:
    return " ".join(rng.choices(_WORDS, k=rng.randint(1, _MOST_WORDS)))
