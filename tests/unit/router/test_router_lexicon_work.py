"""What reading a hostile text costs, counted and not timed."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator, Mapping

from penstock_router.adapters.lexicon_file import load_lexicon
from penstock_router.domain.lexicon import Lexicon

_MOST_LOOK_UPS = 3
"""For each character; the longest of the vocabulary's pieces has 18."""


class Counting(Mapping[str, int]):
    """A vocabulary that counts what it is asked."""

    def __init__(self, pieces: Mapping[str, int]) -> None:
        self.asked = 0
        self._pieces = pieces

    def __getitem__(self, piece: str) -> int:
        return self._pieces[piece]

    def __contains__(self, piece: object) -> bool:
        self.asked += 1
        return piece in self._pieces

    def __iter__(self) -> Iterator[str]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)


def test_noise_costs_a_few_look_ups_a_character() -> None:
    """Keys, dumps and encoded files come by, and one tenant's must not hold up the others (I8)."""
    packaged, rng = load_lexicon(), random.Random(1)
    pieces = Counting(packaged._pieces)
    lexicon = Lexicon(pieces, packaged._vectors)
    text = " ".join("".join(rng.choices(string.ascii_letters, k=60)) for _ in range(200))
    assert lexicon.read(text).token_count > 0
    assert pieces.asked < _MOST_LOOK_UPS * len(text)
