"""The lane of a new request: its own, or the one for what exceeds a tenant's share."""

from __future__ import annotations

from penstock_shared.contracts.subjects import Lane


def fair_lane(asked: Lane, *, open_requests: int, fair_in_flight: int, weight: int) -> Lane:
    """`over-share` once a tenant has its share of requests open, else the lane it asked for.

    A worker can only order what it has fetched, so a flood must be kept out of the lanes that all
    tenants share. The share is `fair_in_flight` for each unit of the tenant's weight.
    """
    return Lane.OVER_SHARE if open_requests >= fair_in_flight * weight else asked
