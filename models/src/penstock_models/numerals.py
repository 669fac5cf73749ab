"""Numbers in words, 0 to 999, in English and German, and back."""

# ruff: noqa: SIM905 - word lists are read more easily as running text

from __future__ import annotations

from functools import cache

LARGEST = 999
ENGLISH_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
ENGLISH_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
GERMAN_SMALL = (
    "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn "
    "fünfzehn sechzehn siebzehn achtzehn neunzehn"
).split()
GERMAN_TENS = "zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig".split()


def english(number: int, *, joined_by_and: bool = True) -> str:
    """`number` in English: 325 is "three hundred and twenty-five"."""
    _check(number)
    hundreds, rest = divmod(number, 100)
    if not hundreds:
        return _english_below_hundred(rest)
    head = f"{ENGLISH_SMALL[hundreds]} hundred"
    if not rest:
        return head
    return f"{head}{' and ' if joined_by_and else ' '}{_english_below_hundred(rest)}"


def german(number: int) -> str:
    """`number` in German: 325 is "dreihundertfünfundzwanzig"."""
    _check(number)
    hundreds, rest = divmod(number, 100)
    if not hundreds:
        return _german_below_hundred(rest)
    head = ("ein" if hundreds == 1 else GERMAN_SMALL[hundreds]) + "hundert"
    return head + (_german_below_hundred(rest) if rest else "")


def parse_english(words: str) -> int:
    """The number that `english` wrote as `words`; raises KeyError on anything else."""
    return _english_index()[words.replace(" and ", " ")]


def parse_german(word: str) -> int:
    """The number that `german` wrote as `word`; raises KeyError on anything else."""
    return _german_index()[word]


def _english_below_hundred(number: int) -> str:
    if number < len(ENGLISH_SMALL):
        return ENGLISH_SMALL[number]
    tens, ones = divmod(number, 10)
    return ENGLISH_TENS[tens - 2] + (f"-{ENGLISH_SMALL[ones]}" if ones else "")


def _german_below_hundred(number: int) -> str:
    if number < len(GERMAN_SMALL):
        return GERMAN_SMALL[number]
    tens, ones = divmod(number, 10)
    prefix = "ein" if ones == 1 else GERMAN_SMALL[ones]
    return (f"{prefix}und" if ones else "") + GERMAN_TENS[tens - 2]


def _check(number: int) -> None:
    if not 0 <= number <= LARGEST:
        message = f"number words go from 0 to {LARGEST}, not {number}"
        raise ValueError(message)


@cache
def _english_index() -> dict[str, int]:
    return {english(number, joined_by_and=False): number for number in range(LARGEST + 1)}


@cache
def _german_index() -> dict[str, int]:
    return {german(number): number for number in range(LARGEST + 1)}
