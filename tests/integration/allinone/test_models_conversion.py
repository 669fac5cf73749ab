"""Checkpoints of several architectures, made on the spot, converted, added and run by the engine.

Needs torch and transformers, in the environment that PENSTOCK_CONVERTER_PYTHON names.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from penstock.errors import OperatorError
from penstock.registry.addition import Wish, add_files
from penstock.registry.source import inspect
from penstock.registry.store import ModelStore
from penstock_shared.contracts.models import ModelKind, ModelLayout, ModelManifest
from penstock_shared.contracts.requests import ChatMessage, Content
from penstock_shared.runtime.model_catalog import ModelCatalog, verify
from penstock_worker.adapters.ctranslate2_encoder import CTranslate2Encoder
from penstock_worker.adapters.ctranslate2_engine import CTranslate2Engine
from penstock_worker.ports import Prompt, SamplingOptions

pytestmark = pytest.mark.long
MAKER = Path(__file__).parents[2] / "support" / "random_checkpoints.py"
LAYOUT = ModelLayout(compute_type="default", slots=1, threads=1, max_batch=4)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """One directory per architecture. A missing converter fails the test; it never skips."""
    python = os.environ.get("PENSTOCK_CONVERTER_PYTHON")
    assert python, "set PENSTOCK_CONVERTER_PYTHON, or run `make test-long`, which makes one"
    root = tmp_path_factory.mktemp("checkpoints")
    command = [python, "-P", str(MAKER), str(root)]
    subprocess.run(command, check=True, capture_output=True, timeout=150)
    return root


def wish(name: str, **changes: object) -> Wish:
    options: dict[str, object] = {
        "name": name,
        "version": "1",
        "kind": None,
        "context_tokens": None,
        "price_input_microusd_per_1k": 1,
        "price_output_microusd_per_1k": 2,
        "quantization": "int8",
        "chat_template": None,
    }
    return Wish(**(options | changes))  # type: ignore[arg-type]


def add(checkpoint: Path, store: Path, name: str, **changes: object) -> tuple[Path, ModelManifest]:
    manifest = add_files(
        inspect(checkpoint),
        wish(name, **changes),
        ModelStore(store),
        dict(os.environ),
        lambda *_: None,
    )
    place = ModelCatalog([store]).find(name, manifest.version)
    assert place is not None
    verify(place, manifest)
    return place, manifest


class Tokens:
    """Keeps what the engine says."""

    def __init__(self) -> None:
        self.heard: dict[int, list[int]] = {}

    def on_token(self, index: int, token: int, log_prob: float) -> bool:
        assert log_prob <= 0
        self.heard.setdefault(index, []).append(token)
        return False

    def on_end(self, index: int) -> None: ...

    def on_step(self) -> None: ...


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "mistral"])
@pytest.mark.parametrize("quantization", ["int8", "float16"])
def test_a_checkpoint_becomes_a_model_that_generates(
    checkpoints, tmp_path, architecture, quantization
):
    """Derived from its own files: kind, context, parameters, tokenizer, template; and it runs."""
    place, manifest = add(
        checkpoints / architecture, tmp_path, architecture, quantization=quantization
    )
    assert (manifest.kind, manifest.context_tokens) == (ModelKind.TEXT, 128)
    assert manifest.parameters > 100_000
    engine = CTranslate2Engine(place, manifest, LAYOUT)
    try:
        said = Content(messages=(ChatMessage(role="user", content="Two red chairs, <|end|>"),))
        prompt = engine.encode(said)
        assert prompt[0] == "<|begin|>"
        assert prompt.count("<|end|>") == 1, "the template's own, not the user's (I8)"
        observer = Tokens()
        engine.generate([Prompt(prompt, []), Prompt(prompt, [])], SamplingOptions(), 12, observer)
        assert observer.heard
        assert observer.heard[0] == observer.heard[1]
        assert len(observer.heard[0]) <= 12
    finally:
        engine.close()


def test_an_encoder_becomes_a_model_that_embeds(checkpoints, tmp_path):
    """Kind and dimensions are read from the weights."""
    place, manifest = add(checkpoints / "bert", tmp_path, "bert")
    assert manifest.kind is ModelKind.EMBEDDING
    assert manifest.embedding is not None
    assert manifest.embedding.dimensions == 64
    engine = CTranslate2Encoder(place, manifest, LAYOUT)
    try:
        (vector,) = engine.embed(engine.tokenize(["Two red chairs"]))
        assert len(vector) == 4 * 64
    finally:
        engine.close()


def test_weights_that_were_cut_off_end_in_the_converters_own_words(checkpoints, tmp_path):
    """No version, and no trace of a stack."""
    weights = checkpoints / "llama" / "model.safetensors"
    whole = weights.read_bytes()
    try:
        weights.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(OperatorError, match="cannot convert"):
            add(checkpoints / "llama", tmp_path, "cut")
    finally:
        weights.write_bytes(whole)
    assert list(tmp_path.rglob("penstock.json")) == []
