"""A batch with unfit ones among it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_billing.handlers.batches import write_all
from penstock_shared.contracts.errors import SchemaError


@given(size=st.integers(0, 300), data=st.data())
async def test_the_unfit_alone_are_refused(size: int, data: st.DataObject) -> None:
    """All others are written, once and in order, in few writes for each that is unfit."""
    unfit = data.draw(st.sets(st.integers(0, max(size - 1, 0)), max_size=4)) & set(range(size))
    written: list[int] = []
    refused: list[int] = []
    writes = 0

    async def write(some: Sequence[int]) -> None:
        nonlocal writes
        writes += 1
        if unfit & set(some):
            msg = "unfit"
            raise SchemaError(msg)
        written.extend(some)

    async def refuse(one: int, _: SchemaError) -> None:
        refused.append(one)

    await write_all(range(size), write, refuse)
    assert written == [one for one in range(size) if one not in unfit]
    assert refused == sorted(unfit)
    assert writes <= 1 + 2 * len(unfit) * math.ceil(math.log2(max(size, 2)))


async def test_any_other_failure_ends_it() -> None:
    """Nobody is to blame when the database is away: the batch is kept whole."""

    async def write(_: Sequence[int]) -> None:
        raise ConnectionError

    async def refuse(one: int, _: SchemaError) -> None:
        raise AssertionError(one)

    with pytest.raises(ConnectionError):
        await write_all([1, 2], write, refuse)
