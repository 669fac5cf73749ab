"""The lexicon from the package's own data."""

from __future__ import annotations

from penstock_router.domain.lexicon import Lexicon


def load_lexicon() -> Lexicon:
    """Pieces and vectors of the package."""
    return Lexicon()
