"""Where a delivered message stands, read from its reply subject."""

from __future__ import annotations

from typing import Final, NamedTuple

_SHORT_REPLY: Final = 9


class Position(NamedTuple):
    """Consumer and count of deliveries; sequence and time (Unix nanoseconds) in the stream.

    `pending` is how many messages the consumer had still to deliver then.
    """

    consumer: str
    deliveries: int
    sequence: int
    time_ns: int
    pending: int


def position_of(reply: str) -> Position:
    """Take `$JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.…` apart.

    Newer servers put domain and account before the stream. nats-py's `msg.metadata` makes objects
    and dates of all of it (7 µs against 0.5).
    """
    tokens = reply.split(".")
    consumer = 3 if len(tokens) == _SHORT_REPLY else 5
    return Position(
        consumer=tokens[consumer],
        deliveries=int(tokens[consumer + 1]),
        sequence=int(tokens[consumer + 2]),
        time_ns=int(tokens[consumer + 4]),
        pending=int(tokens[consumer + 5]),
    )
