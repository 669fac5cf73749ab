"""What a month's quantity costs in tiers: graduated, or all of it in the tier that it reaches.

The two ways are those of Stripe's tiered prices: `tiers_mode` in
https://docs.stripe.com/api/prices/object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from penstock_shared.contracts.plans import (
    PER_UNITS,
    TOKEN_METERS,
    Meter,
    Tier,
    TieredCharge,
    Tiering,
)

Share = Callable[[int], int]
"""What of a whole month's number falls on the days on which the charge holds."""
_HALF: Final = PER_UNITS // 2


@dataclass(frozen=True, slots=True)
class InTier:
    """The units that one tier prices."""

    above: int
    """Where the tier begins: so many units lie in lower ones."""
    units: int
    unit_microusd: int
    amount_microusd: int
    flat_microusd: int


def in_tiers(charge: TieredCharge, quantity: int, share: Share) -> list[InTier]:
    """The tiers in which `quantity` lies, lowest first; bounds and flat fees are prorated.

    Without prorated bounds, whoever changes plans to and fro would see every first tier anew.
    """
    tops = [quantity if tier.up_to is None else share(tier.up_to) for tier in charge.tiers]
    lows = [0, *tops[:-1]]
    if charge.tiering is Tiering.VOLUME:
        reached = next(n for n, top in enumerate(tops) if quantity <= top)
        spans = [(charge.tiers[reached], lows[reached], quantity)]
    else:
        spans = [
            (tier, low, min(quantity, top) - low)
            for tier, low, top in zip(charge.tiers, lows, tops, strict=True)
        ]
    return [_priced(charge.meter, *span, share) for span in spans if span[2] > 0]


def _priced(meter: Meter, tier: Tier, above: int, units: int, share: Share) -> InTier:
    return InTier(
        above=above,
        units=units,
        unit_microusd=tier.microusd,
        amount_microusd=_cost(meter, units, tier.microusd),
        flat_microusd=share(tier.flat_microusd),
    )


def _cost(meter: Meter, units: int, microusd: int) -> int:
    """Rounded half up, as the facts' own costs are."""
    if meter not in TOKEN_METERS:
        return units * microusd
    return (units * microusd + _HALF) // PER_UNITS
