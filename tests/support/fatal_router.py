"""`python -m tests.support.fatal_router <before|after> <kind> <n>`: the router, until it dies.

It is killed right before, or right after, the n-th thing of a kind that it makes durable: a fact
or a job by its CloudEvents type, an entry of a bucket by how its subject begins. Nothing else
differs: what it did up to then was done as in production, and what it was about to do is not.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from typing import Any

from penstock_router.app import create_app
from penstock_router.settings import Settings
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.lifecycle import run
from penstock_shared.runtime.settings import load_settings


def _make_fatal(moment: str, kind: str, at: int) -> None:
    publish, counted = Broker.publish, itertools.count(1)

    async def fatal(
        broker: Broker, subject: str, payload: bytes, envelope: Envelope, **options: Any
    ) -> int:
        meant = envelope.type == kind or subject.startswith(kind)
        last = meant and next(counted) == at
        if last and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        sequence = await publish(broker, subject, payload, envelope, **options)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return sequence

    Broker.publish = fatal  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    _make_fatal(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    run(lambda: create_app(load_settings(Settings)))
