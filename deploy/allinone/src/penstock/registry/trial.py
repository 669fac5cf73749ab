"""A model is loaded and run once before it is registered: what the worker will do, done now."""

from collections.abc import Callable
from pathlib import Path

from penstock.errors import OperatorError
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.contracts.models import ModelKind, ModelLayout, ModelManifest
from penstock_worker.adapters.ctranslate2_encoder import CTranslate2Encoder
from penstock_worker.adapters.ctranslate2_engine import CTranslate2Engine
from penstock_worker.adapters.ctranslate2_translator import CTranslate2Translator
from penstock_worker.ports import Engine

_ENGINES: dict[ModelKind, Callable[[Path, ModelManifest, ModelLayout], Engine]] = {
    ModelKind.TEXT: CTranslate2Engine,
    ModelKind.EMBEDDING: CTranslate2Encoder,
    ModelKind.TRANSLATION: CTranslate2Translator,
}
_LAYOUT = ModelLayout(compute_type="default", slots=1, threads=1, max_batch=1)


def try_out(directory: Path, manifest: ModelManifest) -> None:
    """Load it, run it, let it go.

    Raises:
        OperatorError: Files are missing or truncated, the tokenizer is another model's, there is
            no chat template, or the engine cannot run it.
    """
    try:
        _ENGINES[manifest.kind](directory, manifest, _LAYOUT).close()
    except PenstockError as error:
        raise OperatorError(
            f"This model cannot be served: {error.message}", "Nothing was registered."
        ) from error
