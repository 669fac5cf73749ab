"""Usage over time, page after page from billing."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from penstock.stack_locator import locate_stack
from penstock_shared.contracts import subjects
from penstock_shared.contracts.usage_queries import QueryUsage, UsageBucket, UsagePage

Sink = Callable[[tuple[UsageBucket, ...]], None]


def read_usage(data_dir: Path | None, query: QueryUsage, sink: Sink) -> None:
    """Find the stack and hand `sink` the buckets of every page, in order.

    Raises:
        OperatorError: No stack runs, billing does not answer, or it refuses.
    """
    asyncio.run(_read(locate_stack(data_dir, os.environ).nats_url, query, sink))


async def _read(nats_url: str, query: QueryUsage, sink: Sink) -> None:
    from penstock.operator_bus import operator_bus  # noqa: PLC0415 - loads the bus's client

    async with operator_bus(nats_url) as bus:
        while True:
            page = await bus.ask(subjects.billing("query-usage"), query, UsagePage)
            sink(page.buckets)
            if page.next_page is None:
                return
            query = query.model_copy(update={"page": page.next_page})
