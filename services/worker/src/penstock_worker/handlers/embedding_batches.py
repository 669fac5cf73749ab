"""Runs a batch of embedding jobs: all their texts in one call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import cast

from penstock_worker.domain.embedding import Embedding
from penstock_worker.domain.resident import Resident
from penstock_worker.errors import EngineError, EngineMemoryError
from penstock_worker.handlers.tickets import Ticket
from penstock_worker.ports import EmbeddingEngine


class EmbeddingBatches:
    """What the scheduler's slots do with embeddings."""

    async def run(
        self,
        resident: Resident,
        batch: list[Ticket],
        threads: Executor,
        company: Callable[[Sequence[Ticket]], int],  # noqa: ARG002  no batch is cut
    ) -> list[Ticket]:
        """Run one batch; nobody is left over."""
        engine = cast("EmbeddingEngine", resident.engine)  # its kind was checked at the door
        works = [cast("Embedding", ticket.run.work) for ticket in batch]
        texts = [text for work in works for text in work.texts]
        loop = asyncio.get_running_loop()
        try:
            vectors = await loop.run_in_executor(threads, engine.embed, texts)
        except (EngineError, EngineMemoryError) as error:
            for ticket in batch:
                ticket.fail(error)
            return []
        rest = iter(vectors)
        for ticket, work in zip(batch, works, strict=True):
            work.vectors = [next(rest) for _ in work.texts]
            ticket.finish()
        return []
