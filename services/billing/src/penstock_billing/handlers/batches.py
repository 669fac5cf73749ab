"""Writing a batch of which some may be unfit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from penstock_shared.contracts.errors import SchemaError

T = TypeVar("T")


async def write_all(
    batch: Sequence[T],
    write: Callable[[Sequence[T]], Awaitable[None]],
    refuse: Callable[[T, SchemaError], Awaitable[None]],
) -> None:
    """Write a batch; what cannot be written is refused, and all others still are.

    Halved until it stands alone, one that is unfit costs a few small writes, not one for each of
    its neighbours.
    """
    if not batch:
        return
    try:
        await write(batch)
    except SchemaError as error:
        if len(batch) == 1:
            await refuse(batch[0], error)
            return
        middle = len(batch) // 2
        await write_all(batch[:middle], write, refuse)
        await write_all(batch[middle:], write, refuse)
