"""The small reference model under other names and versions, whole or harmed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from penstock_shared.contracts.models import ModelManifest
from penstock_shared.runtime.model_catalog import MANIFEST, sha256_of

_REFERENCE = Path(__file__).parents[2] / "models" / "penstock-small"


def copy_model(directory: Path, name: str, version: str = "1") -> ModelManifest:
    """Put the small reference model into `directory` as version `version` of `name`."""
    shutil.copytree(_REFERENCE, directory)
    return _rewrite(directory, {"name": name, "version": version})


def begin_prompts_with(directory: Path, word: str) -> ModelManifest:
    """Change the chat template: the version's prompts are longer, which its usage shows."""
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["chat_template"] = word + config["chat_template"]
    path.write_text(json.dumps(config))
    return _sum_anew(directory, path.name)


def harm_weights(directory: Path) -> None:
    """Some bytes are others."""
    with (directory / "model.bin").open("r+b") as weights:
        weights.seek(1000)
        weights.write(b"damage")


def truncate_weights(directory: Path) -> None:
    """The copy was interrupted; its manifest names no sums that would tell."""
    with (directory / "model.bin").open("r+b") as weights:
        weights.truncate(100_000)
    _rewrite(directory, {"sha256": {}})


def lose_tokenizer(directory: Path) -> None:
    """One file is missing."""
    (directory / "tokenizer.json").unlink()


def mix_up_tokenizer(directory: Path) -> None:
    """A tokenizer that numbers two words the other way round, with its sum in the manifest."""
    path = directory / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    one, other = [token for token in vocabulary if token.isalpha()][:2]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    path.write_text(json.dumps(content))
    _sum_anew(directory, path.name)


Harm = Callable[[Path], None]


def _sum_anew(directory: Path, name: str) -> ModelManifest:
    sums = json.loads((directory / MANIFEST).read_text())["sha256"]
    return _rewrite(directory, {"sha256": sums | {name: sha256_of(directory / name)}})


def _rewrite(directory: Path, changes: dict[str, object]) -> ModelManifest:
    path = directory / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return ModelManifest.model_validate_json(path.read_bytes())
