"""What a model needs, and who gives way to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ctranslate2.specs import attention_spec, transformer_spec

from penstock_shared.contracts.models import ModelLayout
from penstock_worker.adapters.ctranslate2_weights import read_shape
from penstock_worker.domain.memory import (
    ModelShape,
    budget_bytes,
    item_bytes,
    need_bytes,
    need_of_unknown_bytes,
    whom_to_unload,
)

MODELS = Path(__file__).parents[3] / "models"


@dataclass(eq=False)
class Loaded:
    name: str
    memory_bytes: int
    last_used_s: float = 0.0
    users: int = 0


def layout(slots: int = 2, max_batch: int = 8, compute_type: str = "int8") -> ModelLayout:
    return ModelLayout(compute_type=compute_type, slots=slots, threads=1, max_batch=max_batch)


def names(leaving: list[Loaded]) -> list[str]:
    return [one.name for one in leaving]


def test_whoever_was_used_longest_ago_leaves_first():
    """Only as many as are needed."""
    held = [Loaded("new", 10, 3), Loaded("old", 10, 1), Loaded("middle", 10, 2)]
    assert names(whom_to_unload(held, 15)) == ["old", "middle"]
    assert names(whom_to_unload(held, 10)) == ["old"]
    assert whom_to_unload(held, 0) == []


def test_nobody_leaves_whose_memory_is_not_needed():
    """A small one stays when a large one must go in any case."""
    held = [Loaded("small", 1, 1), Loaded("large", 10, 2)]
    assert names(whom_to_unload(held, 10)) == ["large"]


def test_a_busy_model_is_named_only_when_the_idle_ones_do_not_suffice():
    """Then it must be let finish; otherwise one that never idles would keep others out for ever."""
    held = [Loaded("busy", 10, 1, users=2), Loaded("idle", 10, 9)]
    assert names(whom_to_unload(held, 10)) == ["idle"]
    assert set(names(whom_to_unload(held, 11))) == {"idle", "busy"}


def test_the_budget_is_what_the_operator_says_or_a_share():
    """The rest is for the process itself and for its neighbours."""
    assert budget_bytes(1_000, 400) == 400
    assert budget_bytes(1_000, None) == 600


@pytest.mark.parametrize(
    ("name", "measured_bytes"), [("penstock-small", 190_500_000), ("penstock-large", 363_000_000)]
)
def test_the_estimate_fits_what_was_measured(name: str, measured_bytes: int):
    """Growth of a process on two slots with eight prompts of 512 tokens each, within a tenth."""
    shape = read_shape(MODELS / name / "model.bin")
    assert shape is not None
    assert need_bytes(shape, layout(), 1024) == pytest.approx(measured_bytes, rel=0.1)


def test_a_need_grows_with_slots_items_context_and_width_of_numbers():
    """Up to the assumed batch; tuning for larger ones does not change it."""
    shape = ModelShape(10**6, 10**6, 4, 128, 4, 128, 384)
    need = need_bytes(shape, layout(), 1024)
    assert need_bytes(shape, layout(slots=1), 1024) < need
    assert need_bytes(shape, layout(max_batch=4), 1024) < need
    assert need_bytes(shape, layout(max_batch=64), 1024) == need
    assert need_bytes(shape, layout(), 8192) > 2 * need  # one item of the whole context
    assert item_bytes(shape, layout(compute_type="int8_float16"), 512) * 2 == item_bytes(
        shape, layout(), 512
    )


def test_converting_weights_holds_both_forms():
    """Stored in int8, computed in float32: five bytes each while it loads."""
    shape = ModelShape(10**6, 10**6, 0, 0, 0, 0, 0)
    plain = need_bytes(shape, layout(), 1)
    assert need_bytes(shape, layout(compute_type="float32"), 1) - plain == 4 * 10**6
    widely_stored = ModelShape(10**6, 4 * 10**6, 0, 0, 0, 0, 0)
    assert need_bytes(widely_stored, layout(), 1) - plain == 4 * 10**6


def test_the_shape_of_a_decoder_is_read_from_its_weights():
    """Four layers; keys as wide as the model, since all heads have their own."""
    shape = read_shape(MODELS / "penstock-small" / "model.bin")
    assert shape is not None
    assert (shape.caches, shape.key_value_width, shape.heads) == (4, 128, 4)
    assert (shape.hidden, shape.feed_forward) == (128, 384)
    assert shape.weights == pytest.approx(1_115_264, rel=0.01)  # what its manifest says


def _fill(spec, hidden: int, feed_forward: int) -> None:
    """Weights for every layer of a stack of transformer layers."""

    def norm(part) -> None:
        part.gamma = part.beta = np.ones(hidden, np.float32)

    def linear(part, out: int, inner: int) -> None:
        part.weight = np.zeros((out, inner), np.float32)
        part.bias = np.zeros(out, np.float32)

    for layer in spec.layer:
        attentions = [layer.self_attention]
        linear(layer.self_attention.linear[0], 3 * hidden, hidden)
        if isinstance(getattr(layer, "attention", None), attention_spec.MultiHeadAttentionSpec):
            attentions.append(layer.attention)
            linear(layer.attention.linear[0], hidden, hidden)
            linear(layer.attention.linear[1], 2 * hidden, hidden)
        for attention in attentions:
            linear(attention.linear[-1], hidden, hidden)
            norm(attention.layer_norm)
        linear(layer.ffn.linear_0, feed_forward, hidden)
        linear(layer.ffn.linear_1, hidden, feed_forward)
        norm(layer.ffn.layer_norm)
    tables = spec.embeddings if isinstance(spec.embeddings, list) else [spec.embeddings]
    for table in tables:
        table.weight = np.zeros((11, hidden), np.float32)
    spec.position_encodings.encodings = np.zeros((16, hidden), np.float32)
    if hasattr(spec, "projection"):
        linear(spec.projection, 11, hidden)


def test_the_shapes_of_encoders_and_of_both_together_are_read(tmp_path: Path):
    """A translator keeps keys of the answer and of the source; an encoder alone keeps none."""
    both = transformer_spec.TransformerSpec.from_config((2, 3), 4, pre_norm=False)
    _fill(both.encoder, 16, 32)
    _fill(both.decoder, 16, 32)
    both.register_source_vocabulary([f"s{n}" for n in range(11)])
    both.register_target_vocabulary([f"t{n}" for n in range(11)])
    both.validate()
    both.save(str(tmp_path))
    shape = read_shape(tmp_path / "model.bin")
    assert shape is not None
    assert (shape.caches, shape.key_value_width, shape.heads) == (6, 16, 4)
    assert (shape.hidden, shape.feed_forward) == (16, 32)


@pytest.mark.parametrize("content", [b"", b"\x06\x00\x00\x00", b"\x07" * 64, b"\xff" * 4096])
def test_weights_of_another_form_have_no_shape_but_a_need(tmp_path: Path, content: bytes):
    """A file that the engine may know and we do not: a margin, never a crash."""
    (tmp_path / "model.bin").write_bytes(content)
    assert read_shape(tmp_path / "model.bin") is None
    assert read_shape(tmp_path / "absent.bin") is None
    assert need_of_unknown_bytes(10**9, layout(1)) < need_of_unknown_bytes(10**9, layout(2))
    assert need_of_unknown_bytes(10**9, layout(1)) > 10**9


def test_a_cut_off_file_has_no_shape(tmp_path: Path):
    """The header promises more than there is."""
    whole = (MODELS / "penstock-small" / "model.bin").read_bytes()
    (tmp_path / "model.bin").write_bytes(whole[: len(whole) // 2])
    assert read_shape(tmp_path / "model.bin") is None
