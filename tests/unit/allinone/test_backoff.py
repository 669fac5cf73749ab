"""The pause before a process that died is started again."""

from penstock.supervision.backoff import BackOff


def test_the_pause_doubles_up_to_its_bound():
    """A process that keeps dying is tried less and less often, and never less than every 5 s."""
    back_off = BackOff()
    assert [back_off.delay_s(streak) for streak in range(1, 9)] == [
        0.1,
        0.2,
        0.4,
        0.8,
        1.6,
        3.2,
        5.0,
        5.0,
    ]


def test_a_streak_of_any_length_stays_at_the_bound():
    """A night of failures neither overflows nor lengthens the pause."""
    assert BackOff().delay_s(100_000) == 5.0


def test_good_health_is_forgiving():
    """Ten seconds of readiness make the next death a first one again; less does not."""
    back_off = BackOff()
    assert back_off.next_streak(6, ready_for_s=10.0) == 1
    assert back_off.next_streak(6, ready_for_s=9.9) == 7
    assert back_off.next_streak(0, ready_for_s=0.0) == 1
