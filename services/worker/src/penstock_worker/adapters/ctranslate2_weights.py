"""Reads from CTranslate2's `model.bin` what decides over a model's memory, without loading it.

Source: `ModelSpec._serialize` in CTranslate2's `specs/model_spec.py`, binary version 6: names,
dimensions, type and size of every variable, each followed by its data.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from penstock_worker.domain.memory import ModelShape

_VERSIONS: Final = (6,)
_MOST_VARIABLES: Final = 1_000_000
_INTEGERS: Final = {1: "<b", 2: "<h", 3: "<i"}
_QUERY_KEY_VALUE: Final = "/self_attention/linear_0/weight"


@dataclass(frozen=True, slots=True)
class _Variable:
    name: str
    dimensions: tuple[int, ...]
    number: int | None
    """Its value, if it is a whole number."""


def read_shape(model_bin: Path) -> ModelShape | None:
    """The model's shape; None when the file is not what this module knows."""
    try:
        with model_bin.open("rb") as file:
            variables = {variable.name: variable for variable in _variables(file)}
        return _shape(variables, model_bin.stat().st_size)
    except (OSError, struct.error, UnicodeDecodeError, KeyError, ValueError):
        return None


def _variables(file: BinaryIO) -> Iterator[_Variable]:
    (version,) = _unpack(file, "<I")
    _text(file)  # the specification's name
    _, count = _unpack(file, "<II")
    if version not in _VERSIONS or count > _MOST_VARIABLES:
        raise ValueError(version)
    for _ in range(count):
        name = _text(file)
        (rank,) = _unpack(file, "<B")
        dimensions = _unpack(file, f"<{rank}I")
        kind, size = _unpack(file, "<BI")
        layout = _INTEGERS.get(kind) if not dimensions else None
        number = _unpack(file, layout)[0] if layout else None
        if layout is None:
            file.seek(size, 1)
        yield _Variable(name, dimensions, number)


def _unpack(file: BinaryIO, layout: str) -> tuple[int, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _text(file: BinaryIO) -> str:
    (length,) = _unpack(file, "<H")
    return file.read(length)[:-1].decode()  # without its NUL


def _shape(variables: dict[str, _Variable], stored_bytes: int) -> ModelShape:
    stack = "decoder" if "decoder/layer_0" + _QUERY_KEY_VALUE in variables else "encoder"
    width, hidden = variables[f"{stack}/layer_0{_QUERY_KEY_VALUE}"].dimensions
    caches = sum(
        name.startswith("decoder/") and name.endswith("attention/linear_0/weight")
        for name in variables
    )
    heads = variables[f"{stack}/num_heads"].number
    if heads is None:
        raise ValueError(stack)
    return ModelShape(
        weights=sum(math.prod(v.dimensions) for v in variables.values() if len(v.dimensions) > 1),
        stored_bytes=stored_bytes,
        caches=caches,
        key_value_width=(width - hidden) // 2,
        heads=heads,
        hidden=hidden,
        feed_forward=variables[f"{stack}/layer_0/ffn/linear_0/weight"].dimensions[0],
    )
