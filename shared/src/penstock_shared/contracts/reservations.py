"""What routers and billing hand to the functions that reserve: `billing.reserve` and `.restore`.

The database is the border between the two here, so its arguments are a contract like an event's.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC
from typing import Any, Final

from penstock_shared.contracts.requests import FIRST_ATTEMPT, RequestRouted

RESERVED_HEADER: Final = "Penstock-Reserved"
"""Of a `routed` fact with reservations: readers to whom the others are nothing need not parse."""


def reservations_json(requests: Iterable[RequestRouted]) -> str:
    """The reservations of several requests, by tenant and the UTC day of their acceptance."""
    by_day: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for routed in requests:
        day = routed.accepted_at.astimezone(UTC).date().isoformat()
        by_day[routed.tenant, day] += _rows(routed)
    return json.dumps(
        [{"tenant": tenant, "day": day, "wanted": rows} for (tenant, day), rows in by_day.items()]
    )


def _rows(routed: RequestRouted) -> list[dict[str, Any]]:
    """Of each attempt: with its own model and price, as its fact will have them."""
    following = dict(enumerate(routed.plan, FIRST_ATTEMPT + 1))
    shared = {
        "request_id": routed.request_id,
        "key_id": routed.key_id,
        "data_subject": routed.data_subject,
        "accepted_at": routed.accepted_at.isoformat(),
        "deadline": routed.deadline.isoformat(),
    }
    rows = []
    for reserve in routed.reserves:
        attempt = following.get(reserve.attempt, routed)
        rows.append(
            shared | reserve.model_dump() | attempt.price.model_dump() | {"model": attempt.model}
        )
    return rows
