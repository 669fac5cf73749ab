"""Which texts an encoder reads together.

An encoder pads every text of a pass to the longest one. So texts are taken in order of length, and
a pass ends where padding would come to cost more than it saves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

MOST_PADDING: Final = 1.25
"""What a pass may compute over what its texts need."""


def length_groups(lengths: Sequence[int], most: int) -> list[list[int]]:
    """The indices of texts, in groups of at most `most`, shortest first."""
    groups: list[list[int]] = []
    group: list[int] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[index]
        padded = length * (len(group) + 1)  # the newcomer is the longest
        if group and (len(group) == most or padded > MOST_PADDING * (tokens + length)):
            groups.append(group)
            group, tokens = [], 0
        group.append(index)
        tokens += length
    return [*groups, group] if group else groups
