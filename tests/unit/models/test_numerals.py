"""Numbers in words."""

from __future__ import annotations

import pytest

from penstock_models import numerals


@pytest.mark.parametrize("number", range(numerals.LARGEST + 1))
def test_every_number_round_trips_in_both_languages(number: int) -> None:
    """What is written in words is read back as the same number, 0 to 999."""
    assert numerals.parse_english(numerals.english(number)) == number
    assert numerals.parse_english(numerals.english(number, joined_by_and=False)) == number
    assert numerals.parse_german(numerals.german(number)) == number


@pytest.mark.parametrize(
    ("number", "english", "german"),
    [
        (0, "zero", "null"),
        (1, "one", "eins"),
        (16, "sixteen", "sechzehn"),
        (21, "twenty-one", "einundzwanzig"),
        (101, "one hundred and one", "einhunderteins"),
        (325, "three hundred and twenty-five", "dreihundertfünfundzwanzig"),
        (999, "nine hundred and ninety-nine", "neunhundertneunundneunzig"),
    ],
)
def test_numbers_are_written_as_dictionaries_write_them(
    number: int, english: str, german: str
) -> None:
    """The spelling follows the rules, also at the irregular places."""
    assert numerals.english(number) == english
    assert numerals.german(number) == german


@pytest.mark.parametrize("number", [-1, 1000])
def test_numbers_outside_of_the_range_are_refused(number: int) -> None:
    """A number that has no words here is an error, not a wrong word."""
    with pytest.raises(ValueError, match="0 to 999"):
        numerals.english(number)
    with pytest.raises(ValueError, match="0 to 999"):
        numerals.german(number)
