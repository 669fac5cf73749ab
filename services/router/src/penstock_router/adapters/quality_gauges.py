"""Shows the quality of decisions as metrics, read when they are scraped."""

from __future__ import annotations

from penstock_router import metrics
from penstock_router.domain.quality import Quality


def expose(quality: Quality) -> None:
    """From now on the gauges tell of `quality`."""
    metrics.MISROUTE_RATE.set_function(lambda: quality.misroute_rate)
    metrics.CALIBRATION_ERROR.set_function(lambda: quality.calibration_error)
    metrics.COST_RATIO.set_function(lambda: quality.cost_ratio)
    metrics.COST.labels("expected").set_function(lambda: quality.expected_microusd)
    metrics.COST.labels("actual").set_function(lambda: quality.actual_microusd)
