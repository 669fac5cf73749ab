"""Adding a model: files into the store, whole or not at all, and only then the record."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from penstock.errors import OperatorError, disk_is_full, explain_os_error
from penstock.registry.conversion import convert
from penstock.registry.source import WEIGHTS, Source, kind_of_weights
from penstock.registry.store import ModelStore
from penstock.registry.trial import try_out
from penstock_shared.contracts.models import (
    EmbeddingOptions,
    ModelKind,
    ModelManifest,
    TranslationOptions,
)
from penstock_shared.runtime.model_catalog import sha256_of
from penstock_worker.adapters.ctranslate2_weights import read_shape

Progress = Callable[[str, int, int], None]
"""What is being done, bytes done, bytes in all (0: not known)."""

_CHUNK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator said; None is derived from the model's own files."""

    name: str
    version: str
    kind: ModelKind | None
    context_tokens: int | None
    price_input_microusd_per_1k: int
    price_output_microusd_per_1k: int
    quantization: str
    chat_template: Path | None
    shortest_dimensions: int | None = None
    """Of an embedding model; None: its vectors stay whole."""


def add_files(
    source: Source, wish: Wish, store: ModelStore, environ: Mapping[str, str], progress: Progress
) -> ModelManifest:
    """Copy or convert, describe, try out, and put in place.

    After this returns the version is on disk. Killed at any step it leaves nothing that looks like
    a version, and can be run again.

    Raises:
        OperatorError: It cannot be served, or there is no room.
    """
    try:
        with store.adding(wish.name, wish.version) as place:
            if not source.is_converted:
                progress("converting", 0, 0)
                convert(source.directory, place, wish.quantization, environ)
            _copy(source, place, progress)
            if wish.chat_template is not None:
                shutil.copyfile(wish.chat_template, place / "chat_template.jinja")
            manifest = _describe(source, wish, place, progress)
            progress("trying out", 0, 0)
            try_out(place, manifest)
            store.put_in_place(place, manifest)
            return manifest
    except OSError as error:
        raise explain_os_error(error, store.root) from error


def _copy(source: Source, place: Path, progress: Progress) -> None:
    files = source.files()
    total = sum(path.stat().st_size for path in files)
    if total > shutil.disk_usage(place).free:
        raise disk_is_full(place)
    done = 0
    for path in files:
        with path.open("rb") as read, (place / path.name).open("wb") as written:
            while chunk := read.read(_CHUNK_BYTES):
                written.write(chunk)
                done += len(chunk)
                progress("copying", done, total)


def _describe(source: Source, wish: Wish, place: Path, progress: Progress) -> ModelManifest:
    kind = kind_of_weights(place / WEIGHTS)
    if wish.kind not in {None, kind}:
        raise OperatorError(
            f"The weights are of the kind {kind.value}, not {wish.kind}.",
            "Leave --kind away, or name another directory.",
        )
    shape = read_shape(place / WEIGHTS)
    if shape is None:
        raise OperatorError(
            f"{source.directory / WEIGHTS} is truncated, or of another version of CTranslate2.",
            "Copy it again, or convert the checkpoint again.",
        )
    paths = sorted(path for path in place.iterdir() if path.is_file())
    try:
        return ModelManifest(
            name=wish.name,
            version=wish.version,
            kind=kind,
            parameters=shape.weights,
            context_tokens=_context_tokens(source, wish),
            size_bytes=sum(path.stat().st_size for path in paths),
            embedding=_embedding(kind, shape.hidden, wish.shortest_dimensions),
            translation=TranslationOptions() if kind is ModelKind.TRANSLATION else None,
            price_input_microusd_per_1k=wish.price_input_microusd_per_1k,
            price_output_microusd_per_1k=wish.price_output_microusd_per_1k,
            sha256=_hashes(paths, progress),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise OperatorError(
            f"{first['loc'][0]}: {first['msg']}.", "Correct it; --help shows examples."
        ) from error


def _context_tokens(source: Source, wish: Wish) -> int:
    known = source.context_tokens
    if wish.context_tokens is None and known is None:
        raise OperatorError(
            "The model's files do not say how long a context may be.",
            "Say it with --context-tokens.",
        )
    if wish.context_tokens is not None and known is not None and wish.context_tokens > known:
        raise OperatorError(
            f"The model was made for contexts of {known} tokens, not {wish.context_tokens}.",
            f"Give --context-tokens {known} or less, or leave it away.",
        )
    return wish.context_tokens or known or 0


def _embedding(kind: ModelKind, dimensions: int, shortest: int | None) -> EmbeddingOptions | None:
    if kind is ModelKind.EMBEDDING and (shortest is None or shortest <= dimensions):
        return EmbeddingOptions(dimensions=dimensions, shortest=shortest)
    if shortest is None:
        return None
    raise OperatorError(
        "--shortest-dimensions is for models that make vectors, and no more than theirs have.",
        "Leave it away, or give a lower number.",
    )


def _hashes(paths: list[Path], progress: Progress) -> dict[str, str]:
    total = sum(path.stat().st_size for path in paths)
    done = 0
    hashes = {}
    for path in paths:
        hashes[path.name] = sha256_of(path)
        done += path.stat().st_size
        progress("checking", done, total)
    return hashes
