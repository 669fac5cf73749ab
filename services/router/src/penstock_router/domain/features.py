"""What the router looks at in a request: numbers, in microseconds, never content."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from penstock_shared.contracts.requests import Content

_WORD: Final = re.compile(r"\w+")
_SENTENCE_END: Final = re.compile(r"[.!?]+(?:\s|$)")
_REVISION: Final = re.compile(
    r"\b(?:no,|not|instead|actually|make that|cancel|forget|scratch|rather|also|another|sorry|"
    r"nein|doch|lieber|statt|streich|storni\w*|außerdem|zusätzlich)\b",
    re.IGNORECASE,
)
_CONJUNCTION: Final = re.compile(r"\b(?:and|und|plus)\b|[,;&]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Features:
    """Counts over the user's turns, or over the texts."""

    words: int
    sentences: int
    listed: int
    """Commas and conjunctions: how many things may be listed."""
    revisions: int
    """Words by which people correct or extend what they said."""
    turns: int

    def as_numbers(self) -> dict[str, float]:
        """The form in which they are logged with the decision."""
        return {
            "words": self.words,
            "sentences": self.sentences,
            "listed": self.listed,
            "revisions": self.revisions,
            "turns": self.turns,
        }


def features_of(content: Content) -> Features:
    """Compute the features of a conversation, or of texts."""
    said = [turn.content for turn in content.messages if turn.role == "user"]
    text = "\n".join((*said, *content.texts))
    return Features(
        words=len(_WORD.findall(text)),
        sentences=max(1, len(_SENTENCE_END.findall(text))),
        listed=len(_CONJUNCTION.findall(text)),
        revisions=len(_REVISION.findall(text)),
        turns=len(content.messages),
    )
