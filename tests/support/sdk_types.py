"""Whether an object is what the official SDK's types say it is: no more, no less."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, RootModel

M = TypeVar("M", bound=BaseModel)


def conforming(kind: type[M], value: Any) -> M:
    """`value` as the SDK's own type; every field of the right type, and none that it lacks.

    The SDK itself checks nothing of what it receives.
    """
    found = kind.model_validate(value, strict=True)
    strange = list(_strange(found, kind.__name__))
    assert not strange, strange
    return found


def _strange(value: Any, where: str) -> list[str]:
    if isinstance(value, list):
        return [s for n, item in enumerate(value) for s in _strange(item, f"{where}[{n}]")]
    if not isinstance(value, BaseModel) or isinstance(value, RootModel):
        return []
    extra = [f"{where}.{name}" for name in value.model_extra or {}]
    for name in type(value).model_fields:
        extra += _strange(getattr(value, name), f"{where}.{name}")
    return extra
