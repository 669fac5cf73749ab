"""Counted things and dates, in English and in German: what the tests' small translator learnt.

Numbers that are 3 more than a multiple of 7 are held out: training never shows one of them, so a
test that uses them shows that the model reads numbers instead of remembering them.
"""

from __future__ import annotations

import random
from typing import Final

LARGEST: Final = 9_999

_UNITS = ("", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = (
    *("ten", "eleven", "twelve", "thirteen", "fourteen"),
    *("fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_EINER = ("", "ein", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun")
_ZEHNER = (
    *("zehn", "elf", "zwölf", "dreizehn", "vierzehn"),
    *("fünfzehn", "sechzehn", "siebzehn", "achtzehn", "neunzehn"),
)
_ZIG = (
    *("", "", "zwanzig", "dreißig", "vierzig"),
    *("fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"),
)
_THINGS = {
    "hats": "Hüte",
    "cups": "Tassen",
    "shirts": "Hemden",
    "boxes": "Kisten",
    "lamps": "Lampen",
    "chairs": "Stühle",
    "books": "Bücher",
    "keys": "Schlüssel",
    "apples": "Äpfel",
    "letters": "Briefe",
}
_MONTHS = {
    "January": "Januar",
    "March": "März",
    "May": "Mai",
    "June": "Juni",
    "July": "Juli",
    "October": "Oktober",
    "December": "Dezember",
}
_DAYS = {
    "Monday": "Montag",
    "Tuesday": "Dienstag",
    "Thursday": "Donnerstag",
    "Saturday": "Samstag",
}
_ORDINALS = {
    "first": "erste",
    "second": "zweite",
    "third": "dritte",
    "seventh": "siebte",
    "eighth": "achte",
    "twelfth": "zwölfte",
    "twentieth": "zwanzigste",
}


def held_out(number: int) -> bool:
    """Whether training never shows this number."""
    return number % 7 == 3


def english(number: int) -> str:
    """2 to 9,999 in British English: "four hundred and twenty-one"."""
    thousands, rest = divmod(number, 1000)
    hundreds, below = divmod(rest, 100)
    words = [f"{_UNITS[thousands]} thousand"] if thousands else []
    words += [f"{_UNITS[hundreds]} hundred"] if hundreds else []
    words += ["and"] if words and below else []
    words += [_english_below_100(below)] if below else []
    return " ".join(words)


def german(number: int) -> str:
    """The same in German, as one word: "vierhunderteinundzwanzig"."""
    thousands, rest = divmod(number, 1000)
    hundreds, below = divmod(rest, 100)
    front = f"{_EINER[thousands]}tausend" if thousands else ""
    return front + (f"{_EINER[hundreds]}hundert" if hundreds else "") + _german_below_100(below)


def counted(number: int, thing: int) -> tuple[str, str]:
    """So many of the things with this index, in both languages."""
    name, uebersetzt = list(_THINGS.items())[thing % len(_THINGS)]
    return f"{english(number)} {name}", f"{german(number)} {uebersetzt}"


def phrase(rng: random.Random, *, unseen: bool) -> tuple[str, str]:
    """One to three counted things, perhaps after a date; `unseen` takes held-out numbers only."""
    parts = [_counted_at_random(rng, unseen=unseen) for _ in range(rng.choice((1, 1, 2, 3)))]
    source = " and ".join(part[0] for part in parts)
    target = " und ".join(part[1] for part in parts)
    if rng.random() < 0.4:
        day, month, nth = (rng.choice(list(m.items())) for m in (_DAYS, _MONTHS, _ORDINALS))
        source = f"{day[0]}, the {nth[0]} of {month[0]}: {source}"
        target = f"{day[1]}, der {nth[1]} {month[1]}: {target}"
    return source, target


def _counted_at_random(rng: random.Random, *, unseen: bool) -> tuple[str, str]:
    while True:
        number = rng.randint(2, rng.choice((99, 999, LARGEST)))
        if number % 100 != 1 and held_out(number) == unseen:  # "ein Hut" has rules of its own
            return counted(number, rng.randrange(len(_THINGS)))


def _english_below_100(number: int) -> str:
    tens, units = divmod(number, 10)
    if tens == 1:
        return _TEENS[units]
    return "-".join(word for word in (_TENS[tens], _UNITS[units]) if word)


def _german_below_100(number: int) -> str:
    tens, units = divmod(number, 10)
    if tens == 1:
        return _ZEHNER[units]
    return "und".join(word for word in (_EINER[units], _ZIG[tens]) if word)
