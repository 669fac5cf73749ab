"""Texts that an encoder reads together: all of them, once, and little padding."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_worker.domain.length_groups import MOST_PADDING, length_groups


@settings(deadline=None)
@given(st.lists(st.integers(1, 512), max_size=100), st.integers(1, 40))
def test_groups_hold_every_text_once_and_pad_little(lengths: list[int], most: int):
    """No group is too large, none pays more for padding than stated."""
    groups = length_groups(lengths, most)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        own = [lengths[index] for index in group]
        assert 1 <= len(group) <= most
        assert max(own) * len(own) <= MOST_PADDING * sum(own)


@settings(deadline=None)
@given(st.integers(1, 512), st.integers(1, 100), st.integers(1, 40))
def test_texts_of_one_length_fill_their_groups(length: int, count: int, most: int):
    """Nothing is split that need not be."""
    assert len(length_groups([length] * count, most)) == -(-count // most)
