"""Sentence vectors against the reference implementation's, with the real all-MiniLM-L6-v2."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.minilm import DIMENSIONS, LONGEST, MANIFEST, convert, original

from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.models import EmbeddingOptions, ModelLayout
from penstock_shared.runtime.clock import SystemClock
from penstock_shared.runtime.model_catalog import ModelCatalog
from penstock_worker.adapters.ctranslate2_devices import choose_target
from penstock_worker.adapters.ctranslate2_encoder import CTranslate2Encoder
from penstock_worker.adapters.layout_store import LayoutStore
from penstock_worker.adapters.machine import Machine
from penstock_worker.adapters.model_shelf import DiskShelf
from penstock_worker.adapters.tuner import Tuner
from penstock_worker.errors import ContextLengthError, EngineError

_GOLDEN = Path(__file__).parents[2] / "data" / "embeddings" / "golden.json"
_LAYOUT = ModelLayout(compute_type="float32", slots=1, threads=1, max_batch=8)
_TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("minilm") / MANIFEST.name / MANIFEST.version
    convert(original(), target)
    return target


@pytest.fixture(scope="module")
def engine(directory: Path) -> Iterator[CTranslate2Encoder]:
    loaded = CTranslate2Encoder(directory, MANIFEST, _LAYOUT)
    yield loaded
    loaded.close()


def vectors(engine: CTranslate2Encoder, texts: list[str]) -> NDArray[np.float32]:
    made = engine.embed(engine.tokenize(texts))
    return np.stack([np.frombuffer(vector, "<f4") for vector in made])


def reference(texts: list[str]) -> NDArray[np.float32]:
    """What transformers and torch make of them, in the environment that has them."""
    command = [os.environ["PENSTOCK_CONVERTER_PYTHON"], "-m", "tests.support.minilm_reference"]
    asked = json.dumps({"model": str(original()), "texts": texts})
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=True)
    return np.array(json.loads(done.stdout), np.float32)


def damaged(directory: Path, tmp_path: Path) -> Path:
    """A copy whose files may be broken."""
    return Path(shutil.copytree(directory, tmp_path / "model"))


def test_vectors_agree_with_the_reference_implementation(engine: CTranslate2Encoder):
    """English, German, emoji, nothing at all, 256 tokens: as transformers and torch make them."""
    golden = json.loads(_GOLDEN.read_text(encoding="utf-8"))
    texts = [row["text"] for row in golden]
    expected = np.stack([np.frombuffer(base64.b64decode(row["vector"]), "<f4") for row in golden])
    assert [len(tokens) for tokens in engine.tokenize(texts)] == [row["tokens"] for row in golden]
    made = vectors(engine, texts)
    assert made.shape == (len(golden), DIMENSIONS)
    assert np.abs(made - expected).max() < _TOLERANCE


@pytest.mark.long
def test_vectors_agree_with_the_reference_run_beside_them(engine: CTranslate2Encoder):
    """Two hundred texts that nobody chose, lengths of all sizes."""
    rng = random.Random(7)
    words = ["river", "Straße", "order", "17", "€5", "café", "never", "🚀", "it's", "unbelievable"]
    texts = [" ".join(rng.choices(words, k=rng.randint(0, 90))) for _ in range(200)]
    texts = [text for text in texts if len(engine.tokenize([text])[0]) <= LONGEST]
    assert np.abs(vectors(engine, texts) - reference(texts)).max() < _TOLERANCE


def test_a_worker_loads_it_in_numbers_that_keep_it_right(directory: Path):
    """Tuned and loaded as a worker does it: int8, which text models get, is off by 0.03."""
    layouts = LayoutStore(None)
    shelf = DiskShelf(
        ModelCatalog([directory.parent.parent]),
        layouts,
        Tuner(layouts, SystemClock(), budget_s=0.2),
        choose_target("cpu"),
        Machine(processor="test", processors=2, memory_bytes=2**33),
    )
    resident = shelf.load(MANIFEST.record())
    loaded = cast("CTranslate2Encoder", resident.engine)
    golden = json.loads(_GOLDEN.read_text(encoding="utf-8"))[0]
    (made,) = vectors(loaded, [golden["text"]])
    loaded.close()
    expected = np.frombuffer(base64.b64decode(golden["vector"]), "<f4")
    assert resident.layout.compute_type == "float32"
    assert np.abs(made - expected).max() < _TOLERANCE


def test_company_changes_no_vector(engine: CTranslate2Encoder):
    """Padding has no say: alone or among texts of other lengths, in the order that was asked."""
    texts = ["a " * length for length in (90, 1, 40, 2, 200, 3, 41, 5, 88, 0)]
    together = vectors(engine, texts)
    alone = np.concatenate([vectors(engine, [text]) for text in texts])
    assert np.abs(together - alone).max() < 1e-5
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_the_manifest_says_how_a_vector_is_made(directory: Path, engine: CTranslate2Encoder):
    """Pooling "cls" takes the first token's state, and without `normalize` lengths stay."""
    options = EmbeddingOptions(dimensions=DIMENSIONS, pooling="cls", normalize=False)
    first = CTranslate2Encoder(
        directory, MANIFEST.model_copy(update={"embedding": options}), _LAYOUT
    )
    raw = vectors(first, ["The weather is lovely today."])
    first.close()
    assert np.abs(np.linalg.norm(raw, axis=1) - 1).min() > 0.1
    unit = raw / np.linalg.norm(raw)
    assert np.abs(unit - vectors(engine, ["The weather is lovely today."])).max() > 0.01


def test_a_text_cannot_hold_a_control_token(engine: CTranslate2Encoder):
    """What says [SEP] in a text is text; the only control tokens are the model's own frame (I8)."""
    (tokens,) = engine.tokenize(["ignore [SEP] this [CLS] and [MASK] that"])
    assert [t for t in tokens if t in {"[CLS]", "[SEP]", "[MASK]", "[PAD]"}] == ["[CLS]", "[SEP]"]
    assert tokens.count("sep") + tokens.count("##ep") == 1


def test_a_text_that_is_too_long_is_refused_and_named(engine: CTranslate2Encoder):
    """256 tokens go, 257 do not: nothing is cut in silence."""
    engine.tokenize(["a " * (LONGEST - 2)])
    with pytest.raises(ContextLengthError, match="Text 1 has 257 tokens"):
        engine.tokenize(["a", "a " * (LONGEST - 1)])


def test_what_the_engine_refuses_is_an_engine_error(engine: CTranslate2Encoder):
    """More tokens than the model has positions for: its own exception stays inside the adapter."""
    with pytest.raises(EngineError):
        engine.embed([["a"] * 600])


def test_a_truncated_model_is_refused(directory: Path, tmp_path: Path):
    """A permanent error that says what to do, not a crash."""
    copy = damaged(directory, tmp_path)
    with (copy / "model.bin").open("r+b") as file:
        file.truncate(1_000_000)
    with pytest.raises(PermanentError, match="Export the model again"):
        CTranslate2Encoder(copy, MANIFEST, _LAYOUT)


def test_another_models_tokenizer_is_refused(directory: Path, tmp_path: Path):
    """The same pieces under other numbers would make nonsense without a word."""
    copy = damaged(directory, tmp_path)
    description = json.loads((copy / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = description["model"]["vocab"]
    vocabulary["hello"], vocabulary["world"] = vocabulary["world"], vocabulary["hello"]
    (copy / "tokenizer.json").write_text(json.dumps(description), encoding="utf-8")
    with pytest.raises(PermanentError, match=r"does not belong to its model.*'hello', 'world'"):
        CTranslate2Encoder(copy, MANIFEST, _LAYOUT)


@pytest.mark.parametrize(
    ("options", "message"),
    [(None, "add 'embedding'"), (EmbeddingOptions(dimensions=768), "vectors of 384 numbers")],
)
def test_a_manifest_that_does_not_fit_is_refused(
    directory: Path, options: EmbeddingOptions | None, message: str
):
    """Before the first job, with what to write instead."""
    manifest = MANIFEST.model_copy(update={"embedding": options})
    with pytest.raises(PermanentError, match=message):
        CTranslate2Encoder(directory, manifest, _LAYOUT)
