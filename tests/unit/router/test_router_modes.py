"""Degradation modes: what calls for each, how soon it comes and goes, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.support.router import model_record

from penstock_router.domain.modes import (
    BETTER_AFTER_S,
    READ_ONLY_AFTER,
    WORSE_AFTER_S,
    WRITABLE_AFTER_S,
    Modes,
    Signs,
    dearer_away,
)
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.models import Engine, ModelKind, ModelRecord
from penstock_shared.contracts.routing import Choose, Mode, PolicyRules
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.usage import Price

LIMIT_S = 120.0
WELL = Signs(connected=True, dearer_away=False, batch_wait_s=None, facts_behind=0)
CROWDED = replace(WELL, batch_wait_s=2 * LIMIT_S)
POOR = replace(WELL, dearer_away=True)
GONE = replace(WELL, connected=False)


@pytest.fixture
def modes() -> Modes:
    return Modes(batch_wait_limit_s=LIMIT_S)


def look_on(modes: Modes, signs: Signs, from_s: float, for_s: float) -> list[Mode]:
    """Look once a second; the modes that began."""
    seconds = range(int(for_s) + 1)
    return [modes.mode for second in seconds if modes.look(signs, from_s + second)]


def priced(name: str, price: int, **fields: object) -> ModelRecord:
    both = Price(input_microusd_per_1k=price, output_microusd_per_1k=price)
    return model_record(name).model_copy(update={"price": both, **fields})


@pytest.mark.parametrize(
    ("signs", "mode"),
    [
        (POOR, Mode.CHEAP_ONLY),
        (CROWDED, Mode.NO_BATCH),
        (replace(POOR, facts_behind=20_000), Mode.NO_BATCH),
        (replace(CROWDED, connected=False), Mode.READ_ONLY),
    ],
)
def test_the_worst_that_is_called_for_holds(modes: Modes, signs: Signs, mode: Mode) -> None:
    """Each sign has its mode, and says why."""
    look_on(modes, signs, 0, WORSE_AFTER_S)
    assert modes.mode is mode
    assert modes.why != "everything works"


def test_a_moments_trouble_changes_nothing(modes: Modes) -> None:
    """A sign that is gone with the next look leaves the mode as it is."""
    for second in range(0, 20, 2):
        assert not modes.look(CROWDED, second)
        assert not modes.look(WELL, second + 1)


def test_a_moment_of_worse_trouble_makes_bad_no_worse(modes: Modes) -> None:
    """What comes is what was called for all the time, and not the worst of it."""
    look_on(modes, POOR, 0, WORSE_AFTER_S - 1)
    assert look_on(modes, CROWDED, WORSE_AFTER_S, 0) == [Mode.CHEAP_ONLY]
    assert modes.why == "no model but the cheapest can be used"
    assert look_on(modes, CROWDED, WORSE_AFTER_S + 1, WORSE_AFTER_S) == [Mode.NO_BATCH]


def test_it_gets_better_only_after_a_quiet_time(modes: Modes) -> None:
    """A single bad look begins the wait anew."""
    look_on(modes, CROWDED, 0, WORSE_AFTER_S)
    assert look_on(modes, WELL, 10, BETTER_AFTER_S - 1) == []
    modes.look(CROWDED, 20)
    assert look_on(modes, WELL, 21, BETTER_AFTER_S - 1) == []
    assert look_on(modes, WELL, 21 + BETTER_AFTER_S, 0) == [Mode.FULL]


def test_half_better_is_not_well(modes: Modes) -> None:
    """Just below the limit by which it came, no-batch stays; it ends at half of it."""
    look_on(modes, CROWDED, 0, WORSE_AFTER_S)
    assert look_on(modes, replace(WELL, batch_wait_s=0.9 * LIMIT_S), 10, 60) == []
    assert look_on(modes, replace(WELL, batch_wait_s=0.4 * LIMIT_S), 80, 60) == [Mode.FULL]


def test_what_follows_is_the_worst_of_the_quiet_time(modes: Modes) -> None:
    """From read-only to cheap-only where the dearer models were away now and then."""
    modes.look(GONE, 0)
    for second in range(1, 10):
        modes.look(POOR if second % 2 else WELL, second)
    assert modes.mode is Mode.CHEAP_ONLY


def test_writes_that_nobody_confirms_make_it_read_only_and_one_confirmed_ends_it(
    modes: Modes,
) -> None:
    """Three in a row at once; it then wants proof, and nothing else than a write gives it."""
    for _ in range(READ_ONLY_AFTER - 1):
        modes.wrote(None)
    modes.wrote(0.001)
    assert not modes.look(WELL, 0)
    for _ in range(READ_ONLY_AFTER):
        modes.wrote(None)
    assert modes.look(WELL, 1)
    assert modes.mode is Mode.READ_ONLY
    assert look_on(modes, WELL, 2, 600) == []
    assert modes.wants_proof
    modes.wrote(0.001)
    assert look_on(modes, WELL, 700, WRITABLE_AFTER_S) == [Mode.FULL]


def test_slow_writes_keep_the_batch_lane_out_until_they_are_forgotten(modes: Modes) -> None:
    """Also where nothing more is written: what was slow long ago says nothing."""
    for _ in range(50):
        modes.wrote(2.0)
    assert look_on(modes, WELL, 0, WORSE_AFTER_S) == [Mode.NO_BATCH]
    assert look_on(modes, WELL, 10, 60) == [Mode.FULL]


def test_what_each_mode_refuses(modes: Modes) -> None:
    """No-batch refuses the batch lane alone, read-only everything, with 503 and a time."""
    for lane in Lane:
        modes.refuse(lane, 0)
    look_on(modes, CROWDED, 0, WORSE_AFTER_S)
    for lane in set(Lane) - {Lane.BATCH}:
        modes.refuse(lane, 3)
    with pytest.raises(UnavailableError) as crowded:
        modes.refuse(Lane.BATCH, 3)
    assert (crowded.value.code, crowded.value.http_status) == ("batch_refused", 503)
    # The queue has to fall from twice the limit to half of it, and stay there.
    assert crowded.value.retry_after_s == 1.5 * LIMIT_S + BETTER_AFTER_S
    modes.look(GONE, 4)
    for lane in Lane:
        with pytest.raises(UnavailableError) as gone:
            modes.refuse(lane, 5)
        assert (gone.value.code, gone.value.retry_after_s) == ("read_only", WRITABLE_AFTER_S)


def test_cheap_only_changes_how_to_choose_and_nothing_else(modes: Modes) -> None:
    """The cheapest of the tenant's own models, once: its other rules stand."""
    rules = PolicyRules(models=("a", "b"), max_attempts=3, error_penalty_microusd=7)
    assert modes.rules(rules) == rules
    look_on(modes, POOR, 0, WORSE_AFTER_S)
    expected = rules.model_copy(update={"choose": Choose.CHEAPEST, "max_attempts": 1})
    assert modes.rules(rules) == expected


def test_which_models_are_the_dearer_ones() -> None:
    """Text models only, by price; where there is one tier nothing can be away."""
    small, twin, large = priced("small", 1), priced("twin", 1), priced("large", 8)
    echo = priced("echo", 99, engine=Engine.ECHO)
    embed = priced("embed", 99, kind=ModelKind.EMBEDDING)
    assert not dearer_away([small, twin, large], lambda _: True)
    assert dearer_away([small, twin, large], lambda model: model is not large)
    assert not dearer_away([small, twin, echo, embed], lambda _: False)
    assert not dearer_away([], lambda _: False)
