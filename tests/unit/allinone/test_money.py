"""Amounts are written to the last digit, whichever way the money goes."""

from __future__ import annotations

import pytest

from penstock.money import cents, dollars


@pytest.mark.parametrize(
    ("microusd", "written"),
    [
        (0, "$0.000000"),
        (1_234, "$0.001234"),
        (1_234_567_000_001, "$1,234,567.000001"),
        (-1, "-$0.000001"),
        (-1_500_000, "-$1.500000"),
        (-2_000_000, "-$2.000000"),
    ],
)
def test_dollars(microusd: int, written: str) -> None:
    """Of what is in the tenant's favour the digits are those of the same debt."""
    assert dollars(microusd) == written


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        (0, "$0.00"),
        (105, "$1.05"),
        (123_456_789, "$1,234,567.89"),
        (-5, "-$0.05"),
        (-150, "-$1.50"),
    ],
)
def test_cents(amount: int, written: str) -> None:
    """The same in whole cents, as payment providers count."""
    assert cents(amount) == written
