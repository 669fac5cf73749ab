"""Laws of the line in front of the slots: fair, complete, and nobody waits for ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_shared.contracts.subjects import Lane
from penstock_worker.domain.batching import Room, Size
from penstock_worker.domain.line import Line, LinePolicy

FAIR = (Lane.INTERACTIVE, Lane.STANDARD, Lane.BATCH)
LEAD_TOKENS = 500
LONGEST = Size(length=200, expected=200)


@dataclass(eq=False)
class Item:
    """Somebody in line."""

    tenant: str = "a"
    lane: Lane = Lane.STANDARD
    weight: int = 1
    company: str = "model"
    size: Size = Size(length=10, expected=10)  # noqa: RUF009  it is frozen
    alone: bool = False
    since_s: float = 0.0


sizes = st.builds(
    Size, length=st.integers(1, LONGEST.length), expected=st.integers(1, LONGEST.expected)
)
items = st.builds(
    Item,
    tenant=st.sampled_from("abcd"),
    lane=st.sampled_from(list(Lane)),
    weight=st.integers(1, 4),
    company=st.sampled_from(("small", "large")),
    size=sizes,
    alone=st.booleans(),
    since_s=st.floats(0, 100),
)


def line_of(waiting: Sequence[Item], lead_tokens: int = LEAD_TOKENS) -> Line[Item]:
    line: Line[Item] = Line(LinePolicy(lead_tokens=lead_tokens))
    for one in waiting:
        line.enter(one)
    return line


def next_batch(line: Line[Item], room: int = 8, now_s: float = 0.0) -> list[Item]:
    return line.next_batch(now_s, lambda _: Room(room, 600), lambda _: True)


@given(st.lists(items, max_size=60), st.integers(1, 16), st.floats(0, 200))
def test_everybody_gets_out_once(waiting: list[Item], room: int, now_s: float):
    """Whatever waits is in exactly one batch, and batches are what they promise (I2)."""
    line = line_of(waiting)
    taken = []
    while batch := next_batch(line, room, now_s):
        assert len({one.company for one in batch}) == 1
        assert len(batch) <= room
        assert len(batch) == 1 or not any(one.alone for one in batch)
        assert len(batch) == 1 or sum(one.size.cost for one in batch) <= 600
        taken += batch
    assert Counter(map(id, taken)) == Counter(map(id, waiting))
    assert not len(line)


@given(st.data())
@settings(max_examples=60)
def test_no_backlogged_tenant_falls_behind_its_weight(data: st.DataObject):
    """As long as all have work in one lane, tokens by weight differ by a bounded lead (I8).

    The bound: how far a companion may run ahead, and one item on either side of it.
    """
    tenants = {"a": 1, "b": data.draw(st.integers(1, 4)), "c": data.draw(st.integers(1, 4))}
    waiting = [
        Item(tenant=tenant, weight=weight, size=data.draw(sizes))
        for tenant, weight in tenants.items()
        for _ in range(60)
    ]
    data.draw(st.randoms()).shuffle(waiting)
    line, left = line_of(waiting), Counter(one.tenant for one in waiting)
    served: dict[str, float] = dict.fromkeys(tenants, 0.0)
    while all(left.values()):
        for one in next_batch(line):
            served[one.tenant] += one.size.cost / one.weight
            left[one.tenant] -= 1
        assert max(served.values()) - min(served.values()) <= LEAD_TOKENS + 2 * LONGEST.cost


@given(st.integers(0, 300), st.data())
@settings(max_examples=60)
def test_a_flood_does_not_delay_a_newcomer(flood: int, data: st.DataObject):
    """Whoever comes after any number of another's jobs is in one of the next two batches (I8)."""
    line = line_of([Item(tenant="flood", size=data.draw(sizes)) for _ in range(flood)])
    for _ in range(data.draw(st.integers(0, 10))):
        next_batch(line)
    newcomer = Item(tenant="quiet", size=data.draw(sizes))
    line.enter(newcomer)
    assert newcomer in [*next_batch(line), *next_batch(line)]


@given(st.data())
@settings(max_examples=40)
def test_nobody_waits_for_ever(data: st.DataObject):
    """Under a stream of fresh interactive jobs, one of every other lane still gets out."""
    lane = data.draw(st.sampled_from((Lane.STANDARD, Lane.BATCH, Lane.OVER_SHARE)))
    patient = Item(tenant="patient", lane=lane)
    line = line_of([patient])
    for second in range(60):
        for _ in range(8):
            line.enter(Item(tenant="eager", lane=Lane.INTERACTIVE, since_s=float(second)))
        if patient in next_batch(line, now_s=float(second)):
            return
    raise AssertionError(lane)


def test_a_newcomer_is_not_behind_a_flood_that_took_less_than_feared():
    """What a tenant is charged until its answers have ended moves nobody's time but its own."""
    line = line_of([Item("flood", size=Size(length=10, expected=1000)) for _ in range(20)])
    in_the_air = [next_batch(line, room=1)[0] for _ in range(3)]
    newcomer = Item("newcomer")
    line.enter(newcomer)
    for one in in_the_air:
        line.settle(one, used_tokens=11)
    assert newcomer in next_batch(line, room=1)
