"""How many workers the queue asks for: KEDA's share of the decision, and the autoscaler's."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.keda_simulation import KedaSimulation

from penstock.scaled_object import Trigger, scaled_object
from penstock.scaling import (
    ScalingPolicy,
    Stabilizer,
    WorkerRange,
    WorkerScaler,
    is_active,
    wished_workers,
)

POLICY = ScalingPolicy(lag_threshold=16, cooldown_s=30, down_window_s=20)
LAGS = st.lists(st.integers(0, 400), min_size=1, max_size=4)
POLICIES = st.builds(
    ScalingPolicy,
    lag_threshold=st.integers(1, 40),
    activation_lag_threshold=st.integers(0, 10),
    cooldown_s=st.integers(0, 12),
    down_window_s=st.integers(0, 12),
)


def decisions(scaler: WorkerScaler, series, running: int = 0) -> list[int]:
    """What it decides for each (second, lags), when its decisions are carried out."""
    found = []
    for now_s, lags in series:
        running = scaler.decide(lags, running, now_s)
        found.append(running)
    return found


@pytest.mark.parametrize(
    ("lags", "running", "workers"),
    [
        ([0, 0], 2, 0),
        ([1], 2, 1),
        ([16], 4, 1),
        ([3, 40, 5], 1, 3),  # the greediest decides, 40 / 16 rounded up
        ([17], 1, 1),  # 1.06 of the threshold is within the tolerance
        ([18], 1, 2),  # 1.13 is not
        ([29], 2, 2),  # 0.91 of two workers' threshold
        ([], 3, 3),  # no metric, no change
    ],
)
def test_the_formula_is_that_of_keda(lags, running, workers):
    """Lag over threshold, rounded up, except within a tenth of the threshold per worker."""
    assert wished_workers(lags, running, POLICY) == workers


@given(lags=LAGS, running=st.integers(1, 30))
def test_a_wish_is_enough_and_not_more_than_enough(lags, running):
    """Each carries the threshold and its tolerance at most; one fewer would carry too much."""
    wish = wished_workers(lags, running, POLICY)
    per_worker = POLICY.lag_threshold
    assert max(lags) <= wish * per_worker * (1 + POLICY.tolerance)
    assert wish == 0 or max(lags) > (wish - 1) * per_worker * (1 - POLICY.tolerance)


@given(lags=LAGS, more=st.integers(0, 50), running=st.integers(1, 30))
def test_more_work_never_asks_for_fewer_workers(lags, more, running):
    """The wish is monotonic in every lag."""
    greater = [*lags[:-1], lags[-1] + more]
    assert wished_workers(greater, running, POLICY) >= wished_workers(lags, running, POLICY)


def test_a_lag_above_the_activation_wakes_and_one_at_it_does_not():
    """KEDA compares with `>`."""
    policy = ScalingPolicy(activation_lag_threshold=5)
    assert not is_active([5, 0], policy)
    assert is_active([6, 0], policy)


def test_going_up_is_immediate_and_going_down_waits():
    """A pause shorter than the window throws no warm model away."""
    stabilizer = Stabilizer(window_s=60)
    seen, running = [], 1
    for wish, now_s in ((1, 0), (4, 1), (2, 2), (2, 60), (2, 61), (3, 62)):
        running = stabilizer.settle(wish, running, now_s)
        seen.append(running)
    assert seen == [1, 4, 4, 4, 2, 3]


def test_the_operator_starts_one_and_the_autoscaler_the_rest():
    """From zero it is one at first, then what the formula says, and never above the most."""
    scaler = WorkerScaler(POLICY, WorkerRange(0, 3))
    assert decisions(scaler, [(0, [0]), (1, [100]), (2, [100]), (3, [30])]) == [0, 1, 3, 3]


def test_the_last_worker_goes_after_the_cooldown_and_the_others_after_the_window():
    """Window 20 s, cooldown 30 s since the last job; a late job begins both again."""
    scaler = WorkerScaler(POLICY, WorkerRange(0, 3))
    series = [(0, [100]), (1, [100]), (2, [0]), (20, [0]), (21, [0]), (31, [0]), (32, [0])]
    assert decisions(scaler, series) == [1, 3, 3, 3, 1, 1, 0]
    again = WorkerScaler(POLICY, WorkerRange(0, 3))
    assert decisions(again, [(0, [9]), (29, [9]), (59, [0]), (60, [0])]) == [1, 1, 1, 0]


def test_with_a_least_number_there_is_no_rest():
    """KEDA leaves everything above zero to the autoscaler."""
    scaler = WorkerScaler(POLICY, WorkerRange(1, 3))
    assert decisions(scaler, [(0, [0]), (1, [0]), (100, [0])]) == [1, 1, 1]


@given(series=st.lists(LAGS, max_size=60), policy=POLICIES)
def test_the_bounds_hold_and_work_is_never_left_alone(series, policy):
    """Whatever the queue does: never more than the most, and never nobody while there is work."""
    scaler, running = WorkerScaler(policy, WorkerRange(0, 4)), 0
    for now_s, lags in enumerate(series):
        running = scaler.decide(lags, running, now_s)
        assert 0 <= running <= 4
        assert running > 0 or not is_active(lags, policy)


@settings(max_examples=400)
@example(
    series=[[0, 0, 0, 3], [0, 0, 0, 0], [0, 0, 0, 3]],  # up, down and up within one rate period
    policy=ScalingPolicy(lag_threshold=1, cooldown_s=0, down_window_s=0),
    least=1,
    most=3,
)
@given(
    series=st.lists(st.lists(st.integers(0, 120), min_size=4, max_size=4), min_size=1, max_size=80),
    policy=POLICIES,
    least=st.integers(0, 2),
    most=st.integers(3, 9),
)
def test_it_decides_as_keda_and_the_autoscaler_would_at_the_same_moments(
    series, policy, least, most
):
    """The same count at every look as a simulation that has read nothing but the ScaledObject.

    Any lags and any numbers; the autoscaler syncs as often as the operator polls.
    """
    bounds = WorkerRange(least, most)
    cluster = KedaSimulation(
        scaled_object(Trigger.NATS_JETSTREAM, ["m"], policy, bounds), replicas=least
    )
    scaler, running = WorkerScaler(policy, bounds), least
    for now_s, lags in enumerate(series):
        running = scaler.decide(lags, running, now_s)
        cluster.autoscale(lags, now_s)
        cluster.operate(lags, now_s)
        assert running == cluster.replicas, f"at {now_s} s, lags {lags}"


def test_the_simulation_limits_the_rate_as_kubernetes_does():
    """Without policies of its own an autoscaler adds four or doubles in 15 s: ours lifts that."""
    manifest = scaled_object(Trigger.NATS_JETSTREAM, ["m"], POLICY, WorkerRange(0, 40))
    lags = lambda _: [16 * 40, 0, 0, 0]  # noqa: E731  a constant series
    ours = KedaSimulation(manifest).run(lags, 60)
    assert [replicas for _, replicas in ours] == [0, 1, 40]
    behavior = manifest["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    del behavior["scaleUp"]
    theirs = KedaSimulation(manifest).run(lags, 60, sync_at_s=1)
    assert [replicas for _, replicas in theirs] == [0, 1, 5, 10, 20, 40]


def test_a_wish_for_a_share_of_a_worker_is_one():
    """One job is worth a worker, however high the threshold."""
    policy = ScalingPolicy(lag_threshold=1000)
    assert wished_workers([1], 5, policy) == math.ceil(1 / 1000) == 1
