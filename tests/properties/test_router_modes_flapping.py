"""Laws of the modes: whatever is seen, they change rarely, and refuse only what they say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock_router.domain.modes import BETTER_AFTER_S, WRITABLE_AFTER_S, Modes, Signs
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.routing import Mode
from penstock_shared.contracts.subjects import Lane

SIGNS = st.builds(
    Signs,
    connected=st.sampled_from((True, True, True, False)),
    dearer_away=st.booleans(),
    batch_wait_s=st.none() | st.floats(0, 7_200),
    facts_behind=st.integers(0, 30_000),
)
WRITES = st.lists(st.none() | st.floats(0, 5), max_size=4)


def refused(modes: Modes, now_s: float) -> set[Lane]:
    """The lanes that are refused, each with a time to come back."""
    lanes = set()
    for lane in Lane:
        try:
            modes.refuse(lane, now_s)
        except UnavailableError as error:
            if 1 <= error.retry_after_s <= 3_600:
                lanes.add(lane)
    return lanes


@given(st.lists(st.tuples(SIGNS, WRITES), max_size=120))
def test_modes_do_not_flap(seen: list[tuple[Signs, list[float | None]]]) -> None:
    """A mode holds for its quiet time at least before anything better follows."""
    modes, rank = Modes(batch_wait_limit_s=120), list(Mode).index
    began_s = 0
    for second, (signs, writes) in enumerate(seen):
        for took_s in writes:
            modes.wrote(took_s)
        before = modes.mode
        changed = modes.look(signs, second)
        assert changed == (modes.mode is not before)
        if rank(modes.mode) < rank(before):
            quiet_s = WRITABLE_AFTER_S if before is Mode.READ_ONLY else BETTER_AFTER_S
            assert second - began_s >= quiet_s
        if changed:
            began_s = second
        lanes = {Mode.READ_ONLY: set(Lane), Mode.NO_BATCH: {Lane.BATCH}}.get(modes.mode, set())
        assert refused(modes, second) == lanes
