"""What one message is written in: its language, grade, side of the split and source of chance."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from penstock_models.words import Split, invent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

# Text between these two is copied into the answer (or decides it): noise keeps its hands off.
OPEN, CLOSE = "\x02", "\x03"
SLOT = re.compile(r"\{([^{}]*)\}")

Answer = dict[str, Any]
T = TypeVar("T")


class Grade(StrEnum):
    """How much stands between the message and its answer."""

    EASY = "easy"
    MEDIUM = "medium"
    HARD = "hard"


class Language(StrEnum):
    """The languages that messages are written in."""

    ENGLISH = "en"
    GERMAN = "de"


@dataclass
class Scene:
    """The circumstances of one message, and the invented words that it has used."""

    random: Random
    split: Split
    language: Language
    grade: Grade
    lower: bool = False
    medium_changes: float = 0.4  # how many orders of medium grade hold a change of mind
    invented: list[str] = field(default_factory=list)

    @property
    def german(self) -> bool:
        """Whether the message is written in German."""
        return self.language is Language.GERMAN

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.random.random() < probability

    def by_grade(self, easy: T, medium: T, hard: T) -> T:
        """The value that belongs to this scene's grade."""
        if self.grade is Grade.EASY:
            return easy
        return medium if self.grade is Grade.MEDIUM else hard

    def pick(self, options: Sequence[T]) -> T:
        """One of `options`, each as likely as the next."""
        return options[int(self.random.random() * len(options))]

    def say(self, english: Sequence[str], german: Sequence[str]) -> str:
        """One template of the scene's language, its `{a|b}` choices made."""
        return self.expand(self.pick(german if self.german else english))

    def expand(self, template: str) -> str:
        """Make the `{a|b}` choices of a template."""
        parts = _parse(template)
        return "".join(part if isinstance(part, str) else self.pick(part) for part in parts)

    def invent(self) -> str:
        """A capitalised word that exists nowhere, of this scene's side of the split."""
        word = invent(self.random, self.split)
        self.invented.append(word)
        return word

    def cased(self, text: str) -> str:
        """`text` as this message writes it (some people write everything in lower case)."""
        return text.lower() if self.lower else text


def shield(text: str) -> str:
    """Mark `text` as one that noise must leave as it is."""
    return f"{OPEN}{text}{CLOSE}"


@lru_cache(maxsize=4096)
def _parse(template: str) -> tuple[str | tuple[str, ...], ...]:
    pieces = SLOT.split(template)
    return tuple(
        piece if index % 2 == 0 else tuple(piece.split("|")) for index, piece in enumerate(pieces)
    )
