"""How much memory models may take, what one needs, and which gives way to another.

The estimate against the measured growth of a process (CPU, two slots, each reading eight prompts
of 512 tokens): 181 against 191 MB for the 1.1 M-parameter reference model, 362 against 363 for the
one of 5.6 M, 663 against 699 for a Llama of 30 M in int8, and 783 against 705 in float32. Most is
caches and attention scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from penstock_shared.contracts.models import ModelLayout

BUDGET_SHARE: Final = 0.6
"""Of what the process may have at its start: the rest is for its own objects, for batches longer
than assumed, and for its neighbours."""
ASSUMED_ITEMS: Final = 8
ASSUMED_TOKENS: Final = 512
"""A batch of so many items of such a length, or more and shorter ones. What is larger lives on the
memory outside the budget: the worst case (all items as long as the context) would refuse models
that run well for years."""
_PER_SLOT_BYTES: Final = 16_000_000
"""A worker thread's own buffers: 3 to 11 MB were measured, and more after first batches."""
_PER_MODEL_BYTES: Final = 5_000_000
_UNKNOWN_FACTOR: Final = 1.2
_UNKNOWN_SLOT_BYTES: Final = 320_000_000
"""For weights whose shape cannot be read: what the Llama of 30 M parameters takes."""
_WEIGHT_BYTES: Final = {"int8": 1, "int16": 2, "float16": 2, "bfloat16": 2, "float32": 4}
_FLOAT_BYTES: Final = {"float16": 2, "bfloat16": 2}
_FEED_FORWARD_COPIES: Final = 2
_HIDDEN_COPIES: Final = 4


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What decides over a transformer's memory."""

    weights: int
    """Numbers in the matrices."""
    stored_bytes: int
    """The file's size."""
    caches: int
    """Layers that keep keys and values while generating; 0 for an encoder, 2 per layer of a
    decoder that looks at a source, too."""
    key_value_width: int
    """Numbers in the key of one token and layer, over all heads."""
    heads: int
    hidden: int
    feed_forward: int


class Occupant(Protocol):
    """A loaded model."""

    @property
    def memory_bytes(self) -> int:
        """What it is taken to need."""
        ...

    @property
    def users(self) -> int:
        """Jobs that hold it."""
        ...

    @property
    def last_used_s(self) -> float:
        """When a job last let go of it, on the monotonic clock."""
        ...


R = TypeVar("R", bound=Occupant)


def budget_bytes(available_bytes: int, asked_bytes: int | None) -> int:
    """What all models together may take: what the operator says, or a share of what there is."""
    return asked_bytes or int(available_bytes * BUDGET_SHARE)


def need_bytes(shape: ModelShape, layout: ModelLayout, context_tokens: int) -> int:
    """Weights, and in each slot the assumed batch or one item of the whole context.

    Tuning does not change it: with the most slots and any batch it is known before the load.
    """
    items = min(ASSUMED_ITEMS, layout.max_batch)
    usual = items * item_bytes(shape, layout, min(ASSUMED_TOKENS, context_tokens))
    longest = item_bytes(shape, layout, context_tokens)
    slot = _PER_SLOT_BYTES + max(usual, longest)
    return _PER_MODEL_BYTES + _weights_bytes(shape, layout) + layout.slots * slot


def need_of_unknown_bytes(stored_bytes: int, layout: ModelLayout) -> int:
    """The need of a model whose shape is not known."""
    slots = layout.slots * _UNKNOWN_SLOT_BYTES
    return _PER_MODEL_BYTES + int(stored_bytes * _UNKNOWN_FACTOR) + slots


def item_bytes(shape: ModelShape, layout: ModelLayout, tokens: int) -> int:
    """One item of so many tokens, at the peak of reading its prompt.

    Keys and values of all layers; one layer's attention scores, which grow with the square of the
    length; its feed-forward's and its inputs' copies.
    """
    keys_and_values = 2 * shape.caches * shape.key_value_width * tokens
    scores = shape.heads * tokens * tokens
    feed_forward = _FEED_FORWARD_COPIES * shape.feed_forward * tokens
    inputs = _HIDDEN_COPIES * shape.hidden * tokens
    float_bytes = _FLOAT_BYTES.get(_float_type(layout.compute_type), 4)
    return float_bytes * (keys_and_values + scores + feed_forward + inputs)


def whom_to_unload(residents: Sequence[R], excess_bytes: int) -> list[R]:
    """Which of `residents` must go so that `excess_bytes` become free.

    Idle ones first, and among equals whoever was used longest ago; nobody whose memory is not
    needed. Busy ones are named only when all idle ones together do not suffice: they must be let
    finish. All of them, when even that is not enough.
    """
    leaving: list[R] = []
    for one in sorted(residents, key=lambda one: (one.users > 0, one.last_used_s)):
        if excess_bytes <= 0:
            break
        leaving.append(one)
        excess_bytes -= one.memory_bytes
    for one in leaving[::-1]:  # the latest makes some of those before it superfluous
        if excess_bytes + one.memory_bytes <= 0:
            leaving.remove(one)
            excess_bytes += one.memory_bytes
    return leaving


def _weights_bytes(shape: ModelShape, layout: ModelLayout) -> int:
    """As computed with; converting from another type holds the stored ones meanwhile."""
    computed = shape.weights * _WEIGHT_BYTES[layout.compute_type.split("_", maxsplit=1)[0]]
    ratio = computed / max(1, shape.stored_bytes)
    converted = not 2 / 3 < ratio < 3 / 2
    return computed + shape.stored_bytes if converted else max(computed, shape.stored_bytes)


def _float_type(compute_type: str) -> str:
    return compute_type.rsplit("_", maxsplit=1)[-1]
