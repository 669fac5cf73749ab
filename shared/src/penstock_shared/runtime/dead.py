"""Writing to DEAD: the one place where poison goes, with its content sealed."""

from __future__ import annotations

from typing import Final

from penstock_shared.contracts import subjects
from penstock_shared.contracts.dead import DeadLetter, dead_id
from penstock_shared.contracts.envelope import TRACEPARENT, Envelope
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.consumer import Delivery
from penstock_shared.runtime.keyring import Keyring

FIELD: Final = "dead"
_SHOWN_HEADERS: Final = ("ce-", "content-type", TRACEPARENT)


def data_subject_of(stream: str) -> str:
    """The data subject under which the poison of a stream is sealed."""
    return f"dead:{stream.lower()}"


class DeadLetters:
    """Buries messages. Burying the same message twice stores it once (within the window)."""

    def __init__(self, broker: Broker, keyring: Keyring, clock: Clock, source: str) -> None:
        self._broker = broker
        self._keyring = keyring
        self._clock = clock
        self._source = source

    async def bury(self, stream: str, delivery: Delivery, error: PenstockError) -> None:
        """Write `delivery` to DEAD; the caller terminates it afterwards, never before."""
        tenant = subjects.parse(delivery.subject).tenant
        letter_id = dead_id(stream, delivery.sequence)
        letter = DeadLetter(
            stream=stream,
            stream_seq=delivery.sequence,
            subject=delivery.subject,
            headers={
                name: value[:512]
                for name, value in delivery.headers.items()
                if name.lower().startswith(_SHOWN_HEADERS)
            },
            deliveries=delivery.deliveries,
            error=error.body(),
            content=await self._keyring.seal(
                tenant, data_subject_of(stream), letter_id, FIELD, delivery.data
            ),
            died_at=self._clock.now(),
        )
        await self._broker.publish(
            subjects.dead(tenant, stream.lower()),
            letter.model_dump_json().encode(),
            Envelope(id=letter_id, source=self._source, type=DeadLetter.TYPE),
            deduplicate=True,
        )
