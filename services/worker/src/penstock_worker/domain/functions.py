"""Whether an answer is a call of one of the client's functions (ADR 13)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from penstock_worker.ports import AnswerSchema

ANY_ARGUMENTS: Final[dict[str, Any]] = {"type": "object"}
"""The schema of a function that names no parameters."""
_WHITE_SPACE: Final = " \t\n\r"  # RFC 8259 §2


@dataclass(frozen=True, slots=True)
class Functions:
    """The functions that an answer may call, in the client's order."""

    parameters: Sequence[AnswerSchema] = ()
    must_call: bool = False

    def called(self, answer: str) -> int | None:
        """The first function whose arguments the answer is; None when it is a message.

        Arguments are a JSON object, and nothing around it: what does not begin as one streams to
        the client while it is generated, and can be no call any more.
        """
        if not answer.lstrip(_WHITE_SPACE).startswith("{"):
            return None
        satisfied = (n for n, one in enumerate(self.parameters) if one.satisfied_by(answer))
        return next(satisfied, None)
