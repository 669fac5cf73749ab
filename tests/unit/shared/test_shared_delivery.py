"""A delivery knows its place in the stream, in both forms of the reply subject."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from nats.aio.msg import Msg

from penstock_shared.runtime.consumer import delivery_of


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.EVENTS.billing.3.4711.4700.1795000000000000000.88",
        "$JS.ACK.hub.ACCHASH.EVENTS.billing.3.4711.4700.1795000000000000000.88.random",
        "$JS.ACK._.ACCHASH.EVENTS.billing.3.4711.4700.1795000000000000000.88.random",
    ],
)
def test_sequence_and_deliveries(reply: str) -> None:
    """What we read ourselves is what nats-py reads."""
    msg = Msg(Mock(), subject="v1.acme.events.request.x", reply=reply, data=b"x", headers=None)
    delivery = delivery_of(msg, lambda _: None)
    assert delivery.sequence == msg.metadata.sequence.stream == 4711
    assert delivery.deliveries == msg.metadata.num_delivered == 3
    assert delivery.headers == {}
