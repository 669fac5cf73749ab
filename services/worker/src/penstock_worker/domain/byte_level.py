"""Incremental text from byte-level BPE (GPT-2's scheme): exact, and a look-up per token.

Source of the byte alphabet: Radford et al., "Language Models are Unsupervised Multitask
Learners", `bytes_to_unicode` in the published encoder.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence


def byte_alphabet() -> dict[str, int]:
    """The printable stand-in of every byte, and the byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    hidden = (byte for byte in range(256) if byte not in printable)
    alphabet.update((chr(256 + number), byte) for number, byte in enumerate(hidden))
    return alphabet


def token_bytes(vocabulary: Mapping[str, int], silent: frozenset[str]) -> list[bytes]:
    """What each token id stands for; `silent` (control) tokens stand for nothing."""
    alphabet = byte_alphabet()
    table = [b""] * (max(vocabulary.values(), default=-1) + 1)
    for token, number in vocabulary.items():
        if token in silent:
            continue
        try:
            table[number] = bytes(alphabet[char] for char in token)
        except KeyError:  # an added token in plain text
            table[number] = token.encode()
    return table


class ByteLevelDetokenizer:
    """One answer. Ids outside the table (padding of the vocabulary) are silent."""

    def __init__(self, table: Sequence[bytes]) -> None:
        self._table = table
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, tokens: Sequence[int]) -> str:
        """The text that these tokens complete."""
        table, size = self._table, len(self._table)
        return self._decoder.decode(b"".join([table[t] for t in tokens if t < size]))

    def finish(self) -> str:
        """What was held back; a cut-off character becomes U+FFFD."""
        return self._decoder.decode(b"", final=True)
