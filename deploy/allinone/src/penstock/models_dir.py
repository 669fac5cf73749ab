"""Where the models lie that the workers load."""

from pathlib import Path

from penstock.errors import OperatorError

_PACKAGE = Path(__file__).resolve().parent


def find_models_dir(chosen: Path | None) -> Path:
    """Return the operator's choice, else the repository's or the installation's `models`.

    Raises:
        OperatorError: The choice is not there, or nothing was found.
    """
    if chosen is not None:
        if not chosen.is_dir():
            raise OperatorError(
                f"PENSTOCK_MODELS_DIR names {chosen}, which is not a directory.",
                "Point it at a directory with one folder per converted model.",
            )
        return chosen
    for candidate in _candidates():
        if candidate.is_dir():
            return candidate
    raise OperatorError(
        "No directory with models was found.",
        "Set PENSTOCK_MODELS_DIR to a directory with one folder per converted model.",
    )


def _candidates() -> list[Path]:
    # In a checkout: <repository>/deploy/allinone/src/penstock/models_dir.py
    in_checkout = [parent / "models" for parent in list(_PACKAGE.parents)[3:4]]
    return [*in_checkout, _PACKAGE / "models", Path.cwd() / "models"]
