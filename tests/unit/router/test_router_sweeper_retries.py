"""What the sweeper makes of a log that does not show what its fold has seen."""

from __future__ import annotations

from pathlib import Path
from typing import cast
from unittest.mock import Mock

import pytest

from penstock_router.adapters.sweeper import Sweeper
from penstock_router.domain.open_requests import OpenRequests
from penstock_router.ports import RequestLog
from penstock_shared.contracts import subjects
from penstock_shared.contracts.requests import RequestRouted
from penstock_shared.runtime.broker import Broker, SequenceConflictError
from penstock_shared.runtime.clock import SystemClock

GOLDEN = Path(__file__).parents[2] / "contracts/golden/request.routed.v1.json"
ROUTED = RequestRouted.model_validate_json(GOLDEN.read_bytes())
SUBJECT = subjects.request_event(ROUTED.tenant, ROUTED.request_id)


class BehindLog:
    """Reads from a replica that lags: nothing yet, or a fact that is no longer the last."""

    def __init__(self, found: tuple[int, RequestRouted] | None) -> None:
        self._found = found

    async def last_fact(self, *_: object) -> tuple[int, RequestRouted] | None:
        return self._found

    async def write_ended(self, *_: object, **__: object) -> None:
        raise SequenceConflictError("Another message stands there already.")


@pytest.mark.parametrize("found", [None, (1, ROUTED)])
async def test_what_a_lagging_replica_hides_is_tried_again(
    found: tuple[int, RequestRouted] | None,
) -> None:
    """Nobody else may be left to end it: only a terminal lets the sweeper forget it (I2)."""
    requests = OpenRequests(grace_s=0)
    requests.fold_open(SUBJECT, 2, deadline_unix_s=0)
    (request,) = requests.take_expired(now_unix_s=1)
    log = cast("RequestLog", BehindLog(found))
    broker = cast("Broker", Mock())
    sweeper = Sweeper(broker, log, requests, SystemClock(), source="/test")
    await sweeper._end(request)
    assert SUBJECT in requests
    requests.fold_ended(SUBJECT, 3)
    assert SUBJECT not in requests
