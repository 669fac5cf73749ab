"""P(a model answers correctly | features), trained offline and calibrated: the shared prior."""

from __future__ import annotations

from penstock_router.domain.features import Features
from penstock_shared.contracts.models import ModelRecord


class Classifier:
    """Weights for some versions of some models; silent about all others."""

    def p_correct(self, features: Features, model: ModelRecord) -> float | None:
        """The calibrated probability that this model's answer to this request is right.

        None where nothing is known: no weights for this model, weights for another version of
        it (stale), or a text unlike all those it was trained on (out of its depth).
        """
        del features, model
        return None
