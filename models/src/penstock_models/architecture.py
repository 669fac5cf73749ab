"""A Llama decoder whose per-token parts have one fixed shape, whatever the sequence length.

A batch always holds the same number of tokens (`rows * length`), so the two per-token halves of a
layer are compiled once each, and only the attention between them sees rows and length.
Source of the architecture: Touvron et al., "LLaMA", 2023 (RMSNorm, SwiGLU, rotary positions).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

ROTARY_BASE = 10_000.0
NORM_EPSILON = 1e-6


@dataclass(frozen=True)
class DecoderShape:
    """The sizes of a decoder; `feed_forward` is the inner width of the gated layer."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    feed_forward: int

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads


def rotary_tables(rows: int, length: int, width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of `rows * length` flattened positions: each (tokens, 1, width)."""
    steps = torch.arange(0, width, 2, dtype=torch.float32) / width
    angles = torch.outer(torch.arange(length, dtype=torch.float32), ROTARY_BASE**-steps)
    doubled = torch.cat((angles, angles), dim=-1).repeat(rows, 1).unsqueeze(1)
    return doubled.cos().bfloat16(), doubled.sin().bfloat16()


def rotate(vectors: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Apply rotary positions in the half-split layout that CTranslate2 calls not interleaved."""
    left, right = vectors.chunk(2, dim=-1)
    return vectors * cosines + torch.cat((-right, left), dim=-1) * sines


def normalise(states: Tensor, gain: Tensor) -> Tensor:
    """Root-mean-square norm, computed in float32."""
    wide = states.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + NORM_EPSILON)
    return (wide * scale * gain).bfloat16()


def enter_attention(
    states: Tensor, gain: Tensor, projection: Tensor, cosines: Tensor, sines: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of shape (tokens, heads, head width), already rotated."""
    fused = functional.linear(normalise(states, gain), projection)
    width = cosines.shape[-1]
    query, key, value = fused.view(states.shape[0], -1, width).chunk(3, dim=1)
    return rotate(query, cosines, sines), rotate(key, cosines, sines), value.contiguous()


def leave_attention(
    states: Tensor, attended: Tensor, output: Tensor, gain: Tensor, gate_up: Tensor, down: Tensor
) -> Tensor:
    """Add the attention's output, then the gated feed-forward layer."""
    states = states + functional.linear(attended, output)
    gate, raised = functional.linear(normalise(states, gain), gate_up).chunk(2, dim=-1)
    return states + functional.linear(functional.silu(gate) * raised, down)


def attend(query: Tensor, key: Tensor, value: Tensor, rows: int, heads: int) -> Tensor:
    """Causal attention of flattened tokens, written out.

    PyTorch's fused kernel for CPUs is quick forwards and several times slower backwards on
    sequences as short as these (measured), so the products are left to the matrix units.
    """
    length, width = query.shape[0] // rows, query.shape[-1]
    queries, keys, values = (
        part.view(rows, length, heads, width).transpose(1, 2).reshape(-1, length, width)
        for part in (query, key, value)
    )
    scores = torch.bmm(queries, keys.transpose(1, 2)).float() * width**-0.5
    hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
    weights = scores.masked_fill(hidden, float("-inf")).softmax(-1).bfloat16()
    mixed = torch.bmm(weights, values).view(rows, heads, length, width)
    return mixed.transpose(1, 2).reshape(rows * length, heads * width)


class Layer(nn.Module):  # type: ignore[misc]
    """The weights of one decoder layer, kept in float32 and used in bfloat16."""

    def __init__(self, shape: DecoderShape) -> None:
        """Draw the weights; the two that write to the residual stream start smaller."""
        super().__init__()
        hidden, inner = shape.hidden, shape.feed_forward
        quiet = 0.5 * hidden**-0.5 / (2 * shape.layers) ** 0.5
        self.attention_gain = nn.Parameter(torch.ones(hidden))
        self.query = nn.Parameter(torch.randn(hidden, hidden) * 0.5 * hidden**-0.5)
        self.key = nn.Parameter(torch.randn(hidden, hidden) * 0.5 * hidden**-0.5)
        self.value = nn.Parameter(torch.randn(hidden, hidden) * 0.5 * hidden**-0.5)
        self.output = nn.Parameter(torch.randn(hidden, hidden) * quiet)
        self.feed_forward_gain = nn.Parameter(torch.ones(hidden))
        self.gate = nn.Parameter(torch.randn(inner, hidden) * 0.5 * hidden**-0.5)
        self.up = nn.Parameter(torch.randn(inner, hidden) * 0.5 * hidden**-0.5)
        self.down = nn.Parameter(torch.randn(hidden, inner) * quiet)

    def query_key_value(self) -> Tensor:
        """The three projections into the attention as one matrix."""
        return torch.cat((self.query, self.key, self.value))

    def gate_up(self) -> Tensor:
        """The two projections into the feed-forward layer as one matrix."""
        return torch.cat((self.gate, self.up))


class Decoder(nn.Module):  # type: ignore[misc]
    """The decoder: token ids in, logits at chosen positions out; embeddings are tied."""

    def __init__(self, shape: DecoderShape, *, compiled: bool = False) -> None:
        """Make the layers; `compiled` fuses the per-token halves (needs a C++ compiler)."""
        super().__init__()
        self.shape = shape
        self.embedding = nn.Parameter(torch.randn(shape.vocabulary, shape.hidden) * 0.05)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.final_gain = nn.Parameter(torch.ones(shape.hidden))
        self._tables: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        wrap = torch.compile if compiled else (lambda function, **_: function)
        self._attend = wrap(attend, dynamic=False)
        self._enter = wrap(enter_attention, dynamic=False)
        self._leave = wrap(leave_attention, dynamic=False)

    def forward(self, tokens: Tensor, wanted: Tensor) -> Tensor:
        """Logits (float32) at the flattened positions `wanted` of `tokens` (rows, length).

        Padding stands at the end of a row: the causal mask alone keeps it out of what is read.
        """
        rows, length = tokens.shape
        cosines, sines = self._rotary(rows, length)
        states = functional.embedding(tokens.reshape(-1), self.embedding).bfloat16()
        for layer in self.layers:
            query, key, value = self._enter(
                states, layer.attention_gain, layer.query_key_value().bfloat16(), cosines, sines
            )
            attended = self._attend(query, key, value, rows, self.shape.heads)
            states = self._leave(
                states,
                attended,
                layer.output.bfloat16(),
                layer.feed_forward_gain,
                layer.gate_up().bfloat16(),
                layer.down.bfloat16(),
            )
        chosen = normalise(states.index_select(0, wanted), self.final_gain)
        return functional.linear(chosen, self.embedding.bfloat16()).float()

    def _rotary(self, rows: int, length: int) -> tuple[Tensor, Tensor]:
        if (rows, length) not in self._tables:
            self._tables[rows, length] = rotary_tables(rows, length, self.shape.head_width)
        return self._tables[rows, length]
