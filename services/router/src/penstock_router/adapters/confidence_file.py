"""The curves of confidence from a file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penstock_router.domain.confidence import ConfidenceCurve, Confidences
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.ids import ModelName
from penstock_shared.contracts.models import Version

PACKAGED: Final = "data/confidence.json"
_Shares = tuple[Annotated[float, Field(ge=0, le=1)], ...]


class MeasuredCurve(BaseModel):
    """One model's curve, and how many answers it was measured with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelName
    version: Version
    answers: int
    thresholds: _Shares
    catches: _Shares
    false_alarms: _Shares


class ConfidenceFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    curves: tuple[MeasuredCurve, ...]


def load_confidences(path: Path | None = None) -> Confidences:
    """The curves in `path`, or the package's own.

    Raises:
        PermanentError: it is no such file.
    """
    source = files("penstock_router").joinpath(PACKAGED) if path is None else path
    try:
        read = ConfidenceFile.model_validate_json(source.read_bytes())
    except (OSError, ValidationError) as error:
        msg = f"{source} is no file of confidence curves: fit it again."
        raise PermanentError(msg, code="confidence_unreadable") from error
    return Confidences(
        {
            (curve.model, curve.version): ConfidenceCurve(
                curve.thresholds, curve.catches, curve.false_alarms
            )
            for curve in read.curves
        }
    )
