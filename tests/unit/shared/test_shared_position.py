"""Reply subjects, read our way and nats-py's way."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from nats.aio.msg import Msg

from penstock_shared.runtime.position import position_of

OLD = "$JS.ACK.EVENTS.billing.3.1200.77.1795190000123456789.5"
NEW = "$JS.ACK.hub.ACCHASH.EVENTS.billing.3.1200.77.1795190000123456789.5.token"


UNNAMED = NEW.replace("hub", "_")


@pytest.mark.parametrize("reply", [OLD, NEW, UNNAMED])
def test_every_form_reads_as_nats_py_reads_it(reply: str) -> None:
    """Consumer, deliveries, sequence and time are those of `msg.metadata`, short and long."""
    ours, theirs = position_of(reply), Msg.Metadata._from_reply(reply)
    assert ours.consumer == theirs.consumer == "billing"
    assert ours.deliveries == theirs.num_delivered == 3
    assert ours.sequence == theirs.sequence.stream == 1200
    assert ours.pending == theirs.num_pending == 5
    assert datetime.fromtimestamp(ours.time_ns / 1e9, UTC) == theirs.timestamp
