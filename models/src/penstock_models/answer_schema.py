"""The JSON Schema of every answer: what an application would ask for, not knowing the message.

It says what an answer may look like and nothing of what was asked, so it finds answers that are
broken, not answers that are wrong.
"""

from __future__ import annotations

from typing import Any, Final

from penstock_models.faq import TOPICS
from penstock_models.lexicon import COLOUR_NAMES, SIZES

_TEXT: Final = {"type": "string", "minLength": 1}
_COUNT: Final = {"type": "integer", "minimum": 1}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
        "additionalProperties": False,
    }


_LINE: Final = _object(
    {"item": _TEXT, "quantity": _COUNT},
    {"size": {"enum": list(SIZES)}, "color": {"enum": list(COLOUR_NAMES)}},
)
_LINES: Final = {"type": "array", "items": _LINE, "minItems": 1}
_REQUESTS: Final = [
    _object({"intent": {"const": "faq"}, "topic": {"enum": list(TOPICS)}}),
    _object({"intent": {"const": "order"}, "items": _LINES}, {"place": _TEXT}),
    _object({"intent": {"const": "lead"}, "name": _TEXT, "company": _TEXT}, {"seats": _COUNT}),
]
_PARTS: Final = {"type": "array", "items": {"anyOf": _REQUESTS}, "minItems": 2, "maxItems": 2}

ANSWER_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [
        *_REQUESTS,
        _object({"intent": {"const": "other"}}),
        _object({"intent": {"const": "multi"}, "parts": _PARTS}),
    ]
}
