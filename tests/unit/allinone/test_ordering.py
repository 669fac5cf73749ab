"""Start and stop order."""

from dataclasses import dataclass

import pytest

from penstock.supervision.ordering import start_waves, stop_waves


@dataclass(frozen=True)
class Item:
    name: str
    depends_on: tuple[str, ...] = ()
    drain_rank: int = 0


STACK = (
    Item("realtime", ("billing",), 50),
    Item("billing", ("nats", "postgres"), 10),
    Item("worker-2", ("billing",), 30),
    Item("nats"),
    Item("worker-1", ("billing",), 30),
    Item("postgres"),
)


def test_start_waves_respect_dependencies_and_are_as_wide_as_possible():
    """Servers together, then billing, then everything that needs it together."""
    assert start_waves(STACK) == [
        ["nats", "postgres"],
        ["billing"],
        ["realtime", "worker-1", "worker-2"],
    ]


def test_stop_waves_begin_at_the_front():
    """The front closes before those it hands work to; the servers go last."""
    assert stop_waves(STACK) == [
        ["realtime"],
        ["worker-1", "worker-2"],
        ["billing"],
        ["nats", "postgres"],
    ]


@pytest.mark.parametrize(
    ("items", "complaint"),
    [
        ((Item("a", ("b",)), Item("b", ("a",))), "wait for each other"),
        ((Item("a", ("ghost",)),), "unknown dependencies: ghost"),
        ((Item("a"), Item("a")), "two processes are named a"),
    ],
)
def test_impossible_plans_are_refused(items, complaint):
    """A cycle, an unknown name and a repeated name are found before anything starts."""
    with pytest.raises(ValueError, match=complaint):
        start_waves(items)
