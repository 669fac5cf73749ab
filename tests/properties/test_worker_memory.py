"""Laws of the models' memory: the budget holds, busy models stay, and what can fit gets in."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock_worker.domain.memory import whom_to_unload

BUDGET_BYTES = 100


@dataclass(eq=False)
class Loaded:
    memory_bytes: int
    last_used_s: float
    users: int = 0


LOADED = st.builds(
    Loaded, st.integers(0, 60), st.floats(0, 100, allow_nan=False), st.integers(0, 2)
)


@given(st.lists(LOADED, max_size=8), st.integers(-10, 300))
def test_who_leaves_suffices_and_nobody_leaves_in_vain(held: list[Loaded], excess: int):
    """Enough goes, or everybody; without any one of them it would not be enough."""
    leaving = whom_to_unload(held, excess)
    freed = sum(one.memory_bytes for one in leaving)
    assert freed >= excess or set(leaving) == set(held)
    if sum(one.memory_bytes for one in held) >= excess:
        assert all(freed - one.memory_bytes < excess for one in leaving)


@given(st.lists(LOADED, max_size=8), st.integers(1, 300))
def test_no_busy_model_is_named_while_the_idle_ones_suffice(held: list[Loaded], excess: int):
    """And among the idle ones, whoever stays although it was used before a leaver is too small."""
    leaving = whom_to_unload(held, excess)
    idle = [one for one in held if not one.users]
    if sum(one.memory_bytes for one in idle) >= excess:
        assert not any(one.users for one in leaving)
        spare = sum(one.memory_bytes for one in leaving) - excess
        for stays in set(idle) - set(leaving):
            younger = [one for one in leaving if one.last_used_s > stays.last_used_s]
            assert all(stays.memory_bytes <= one.memory_bytes + spare for one in younger)


class Machine(RuleBasedStateMachine):
    """Models come, are used, and leave as `Residents` lets them: the idle at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.serving: list[Loaded] = []
        self.leaving: list[Loaded] = []

    @property
    def held_bytes(self) -> int:
        return sum(one.memory_bytes for one in (*self.serving, *self.leaving))

    @rule(need=st.integers(1, BUDGET_BYTES))
    def ask_for_a_model(self, need: int) -> None:
        """It is let in when there is room; otherwise some are told to leave."""
        excess = self.held_bytes + need - BUDGET_BYTES
        could_fit = excess <= sum(one.memory_bytes for one in self.serving if not one.users)
        leave_anyway = list(self.leaving)
        still = excess - sum(one.memory_bytes for one in leave_anyway)
        for one in whom_to_unload(self.serving, still):
            self.serving.remove(one)
            if one.users:
                self.leaving.append(one)
        fits = self.held_bytes + need <= BUDGET_BYTES
        assert fits or self.leaving, "there is nobody to wait for"
        assert fits or leave_anyway or not could_fit, "idle models were in the way"
        if fits:
            self.now_s += 1
            self.serving.append(Loaded(need, self.now_s))

    @precondition(lambda self: self.serving)
    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        """A job takes hold of a model."""
        data.draw(st.sampled_from(self.serving)).users += 1

    @precondition(lambda self: any(one.users for one in (*self.serving, *self.leaving)))
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        """A job ends; who was told to leave goes with its last."""
        busy = [one for one in (*self.serving, *self.leaving) if one.users]
        one = data.draw(st.sampled_from(busy))
        self.now_s += 1
        one.users -= 1
        one.last_used_s = self.now_s
        if not one.users and one in self.leaving:
            self.leaving.remove(one)

    @invariant()
    def the_budget_holds(self) -> None:
        """Always, also while some are leaving."""
        assert self.held_bytes <= BUDGET_BYTES

    @invariant()
    def who_leaves_is_busy(self) -> None:
        """Nobody idle takes memory without serving."""
        assert all(one.users for one in self.leaving)


TestMachine = Machine.TestCase
TestMachine.__doc__ = "Any order of asking, using and letting go keeps to the budget."
