"""What pydantic finds wrong with a client's JSON, in the API's words: one way for every wire."""

from __future__ import annotations

from typing import Final

from pydantic import ValidationError

from penstock_shared.contracts.errors import PermanentError

_SHOWN: Final = 160
"""How many characters of a client's own names an error repeats."""


def invalid(error: ValidationError, root: str = "") -> PermanentError:
    """The first of pydantic's complaints; `root` is where the value stood."""
    first = error.errors(include_url=False, include_input=False)[0]
    kind = first["type"]
    if kind == "json_invalid":
        return not_json(first["ctx"]["error"])
    parts = (root, *(str(part) for part in first["loc"] if not _is_branch(part)))
    path = ".".join(part for part in parts if part)[:120]
    if not path:
        return PermanentError("The body must be a JSON object.", code="invalid_json")
    if kind == "missing":
        return missing(path)
    if kind == "extra_forbidden":
        return unknown(path)
    code = "invalid_type" if kind.endswith("_type") else "invalid_value"
    msg = f"Invalid value for '{path}': {first['msg']}."
    return PermanentError(msg, code=code, param=path)


def _is_branch(part: int | str) -> bool:
    """Whether pydantic names a member of a union or a dict's key here, and no field."""
    return isinstance(part, str) and (part == "str" or "[" in part)


def not_json(why: object) -> PermanentError:
    """What came is no JSON at all."""
    return PermanentError(f"The body is not valid JSON: {why}.", code="invalid_json")


def unknown(param: str) -> PermanentError:
    """A name that the API does not have."""
    shown = param[:_SHOWN]
    return PermanentError(f"Unknown parameter: {shown!r}.", code="unknown_parameter", param=shown)


def missing(param: str) -> PermanentError:
    """A parameter that is needed."""
    msg = f"Missing required parameter: '{param}'."
    return PermanentError(msg, code="missing_required_parameter", param=param)
