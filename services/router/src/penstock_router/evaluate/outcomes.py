"""Outcomes of two models on the same prompts, as RouteLLM's data have them."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Annotated, Final, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penstock_router.domain.features import Features, features_of
from penstock_router.domain.lexicon import Lexicon
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.requests import ChatMessage, Content

_GZIP: Final = b"\x1f\x8b"


class Run(BaseModel):
    """One model's measured run; other fields are not this report's business."""

    model_config = ConfigDict(frozen=True)

    cpu_us: Annotated[float, Field(ge=0)]
    """Processor time of the whole answer."""


class OutcomeRow(BaseModel):
    """One prompt, and who answered it correctly."""

    model_config = ConfigDict(frozen=True)

    prompt: str
    domain: str
    """For reporting only: never a feature."""
    weak: bool
    strong: bool
    weak_run: Run | None = None
    strong_run: Run | None = None

    @property
    def group(self) -> str:
        """The benchmark: what stands before the slash of the domain."""
        return self.domain.split("/", 1)[0]


Outcomes: TypeAlias = tuple[OutcomeRow, ...]


def read_outcomes(path: Path) -> Outcomes:
    """Read a file of one JSON object per line, gzipped or not.

    Raises:
        PermanentError: it is missing, cannot be read, or a line is not an outcome.
    """
    try:
        raw = path.read_bytes()
        lines = (gzip.decompress(raw) if raw.startswith(_GZIP) else raw).splitlines()
    except (OSError, EOFError, zlib.error) as error:
        msg = f"{path} cannot be read ({error}): give outcomes as JSON lines, gzipped or not."
        raise PermanentError(msg, code="outcomes_unreadable", param="file") from error
    rows = tuple(_row(path, at, line) for at, line in enumerate(lines, 1) if line.strip())
    if not rows:
        msg = f"{path} holds no outcomes."
        raise PermanentError(msg, code="outcomes_unreadable", param="file")
    return rows


def text_content(prompt: str) -> Content:
    """The prompt as one user's message."""
    return Content(messages=(ChatMessage(role="user", content=prompt),))


def features_of_prompts(rows: Outcomes, lexicon: Lexicon) -> tuple[Features, ...]:
    """What the router would see of each prompt."""
    return tuple(features_of(text_content(row.prompt), lexicon) for row in rows)


def _row(path: Path, at: int, line: bytes) -> OutcomeRow:
    try:
        return OutcomeRow.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the line"
        msg = f"{path}, line {at}: {where}: {first['msg']}. It needs prompt, domain, weak, strong."
        raise PermanentError(msg, code="outcomes_malformed", param=where) from error
