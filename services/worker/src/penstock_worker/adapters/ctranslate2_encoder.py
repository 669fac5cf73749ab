"""CTranslate2's encoders: texts to vectors, as sentence-transformers makes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import ctranslate2
import numpy as np
from numpy.typing import NDArray

from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.models import EmbeddingOptions, ModelLayout, ModelManifest
from penstock_worker.adapters.ctranslate2_errors import engine_errors, load_errors
from penstock_worker.adapters.sequence_tokenizer import SequenceTokenizer
from penstock_worker.domain.length_groups import length_groups
from penstock_worker.errors import ContextLengthError, ConversationError

_SMALLEST_NORM: Final = 1e-12
"""Below it a vector is left as it is; torch's `normalize` has the same bound."""

Floats = NDArray[np.float32]


class CTranslate2Encoder:
    """One encoder model in CTranslate2's format, with its tokenizer beside it."""

    def __init__(self, directory: Path, manifest: ModelManifest, layout: ModelLayout) -> None:
        """Load the model and run it once.

        Raises:
            PermanentError: the files are incomplete, not CTranslate2's, or not what the manifest
                says.
            EngineMemoryError: it does not fit into memory.
        """
        self.layout = layout
        self._name = manifest.name
        self._context_tokens = manifest.context_tokens
        self._options = _options(manifest)
        self._tokenizer = SequenceTokenizer(directory)
        with load_errors(directory):
            self._encoder: Any = ctranslate2.Encoder(
                str(directory),
                device=layout.device,
                compute_type=layout.compute_type,
                inter_threads=layout.slots,
                intra_threads=layout.threads,
            )
            self._warm_up()

    @property
    def dimensions(self) -> int:
        """Of a vector."""
        return self._options.dimensions

    def tokenize(self, texts: Sequence[str]) -> list[list[str]]:
        """The tokens of each text."""
        tokens = [self._tokenizer.encode(text) for text in texts]
        for place, length in enumerate(map(len, tokens)):
            if not length:  # a model without tokens of its own
                msg = f"Text {place} is empty: send some text."
                raise ConversationError(msg, code="empty_prompt", param="input")
            if length > self._context_tokens:
                msg = (
                    f"Text {place} has {length} tokens, and {self._name} takes "
                    f"{self._context_tokens}: shorten it, or cut it into several."
                )
                raise ContextLengthError(msg, param="input")
        return tokens

    def embed(self, tokens: Sequence[Sequence[str]]) -> list[bytes]:
        """A vector per text, in the order of the texts."""
        vectors = [b""] * len(tokens)
        for group in length_groups([len(text) for text in tokens], self.layout.max_batch):
            with engine_errors():
                made = self._pass([list(tokens[index]) for index in group])
            for index, vector in zip(group, made, strict=True):
                vectors[index] = vector.tobytes()
        return vectors

    def close(self) -> None:
        """Free the model. Left to the interpreter's exit, its threads can abort the process."""
        self._encoder.unload_model()
        self._encoder = None

    def _pass(self, tokens: list[list[str]]) -> Floats:
        hidden = self._encoder.forward_batch(tokens).last_hidden_state
        on_host = hidden.to_device(ctranslate2.Device.cpu).to(ctranslate2.DataType.float32)
        states: Floats = np.array(on_host)
        lengths = np.array([len(text) for text in tokens])
        pooled = states[:, 0] if self._options.pooling == "cls" else mean(states, lengths)
        return (unit(pooled) if self._options.normalize else pooled).astype("<f4")

    def _warm_up(self) -> None:
        (vector,) = self._pass(self.tokenize(["Hello"]))
        if len(vector) != self.dimensions:
            msg = (
                f"{self._name} makes vectors of {len(vector)} numbers and its manifest says "
                f"{self.dimensions}: correct 'embedding.dimensions' in penstock.json."
            )
            raise PermanentError(msg, code="model_unloadable")


def mean(states: Floats, lengths: NDArray[np.int64]) -> Floats:
    """The mean over each text's own tokens (batch x length x dimensions); padding has no say."""
    own = np.arange(states.shape[1]) < lengths[:, None]
    summed = np.einsum("bld,bl->bd", states, own.astype(states.dtype))
    pooled: Floats = summed / np.maximum(lengths, 1)[:, None].astype(states.dtype)
    return pooled


def unit(vectors: Floats) -> Floats:
    """Each vector at length 1."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Floats = vectors / np.maximum(norms, _SMALLEST_NORM)
    return scaled


def _options(manifest: ModelManifest) -> EmbeddingOptions:
    if manifest.embedding is None:
        msg = (
            f"The manifest of {manifest.name} does not say how its vectors are made: add "
            "'embedding' with 'dimensions' and 'pooling' to penstock.json."
        )
        raise PermanentError(msg, code="model_unloadable")
    return manifest.embedding
