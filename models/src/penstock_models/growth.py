"""A wide, deep model that begins as good as a narrow, shallow one.

Trained from nothing, a wide model's first million tokens buy little that a narrow one would not
have learned at a fraction of the cost. So it is grown: every feature, head and inner unit is
doubled and new layers write nothing at first, which leaves the function as it was. Opposite noise
on the two halves of each matrix's input cancels while the halves are equal, and lets them part.
Sources: Chen et al., "Net2Net", 2016; Gong et al., "Efficient training of BERT by progressively
stacking", 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor

from penstock_models.architecture import Decoder, DecoderShape, Layer

NOISE = 0.5  # of a matrix's own spread


def grow(narrow: Decoder, shape: DecoderShape, *, compiled: bool = False) -> Decoder:
    """A decoder of `shape`, twice as wide as `narrow` and as deep or deeper, with its function."""
    check_growth(narrow.shape, shape)
    wide = Decoder(shape, compiled=compiled)
    with torch.no_grad():
        wide.embedding.copy_(torch.cat((narrow.embedding, narrow.embedding), dim=1))
        # Both halves add to a logit, and the embeddings are tied: half the gain keeps it.
        wide.final_gain.copy_(narrow.final_gain.repeat(2) / 2)
        for place, layer in enumerate(wide.layers):
            source = source_of(place, narrow.shape.layers, shape.layers)
            if source is None:
                layer.output.zero_()
                layer.down.zero_()
            else:
                _widen(narrow.layers[source], layer)
    return wide


def check_growth(narrow: DecoderShape, wide: DecoderShape) -> None:
    """Raise ValueError unless `wide` is `narrow` doubled, with the same heads and words."""
    doubled = (2 * narrow.hidden, 2 * narrow.heads, 2 * narrow.feed_forward, narrow.vocabulary)
    if (wide.hidden, wide.heads, wide.feed_forward, wide.vocabulary) != doubled:
        raise ValueError("a model grows by doubling its width, heads and inner width")
    if wide.layers < narrow.layers:
        raise ValueError("a model grows no shallower")


def source_of(place: int, narrow_layers: int, wide_layers: int) -> int | None:
    """The layer that becomes layer `place`, or None for a new one; new ones lie spread between."""
    before = place * narrow_layers // wide_layers
    after = (place + 1) * narrow_layers // wide_layers
    return before if after > before else None


def _widen(narrow: Layer, wide: Layer) -> None:
    wide.attention_gain.copy_(narrow.attention_gain.repeat(2))
    wide.feed_forward_gain.copy_(narrow.feed_forward_gain.repeat(2))
    for name in ("query", "key", "value", "output", "gate", "up", "down"):
        getattr(wide, name).copy_(double(getattr(narrow, name)))


def double(matrix: Tensor) -> Tensor:
    """Four copies of `matrix` that map equal input halves to equal output halves, as it does."""
    half = matrix.repeat(2, 1) / 2
    noise = torch.randn_like(half) * half.std() * NOISE
    return torch.cat((half + noise, half - noise), dim=1)
