"""DEAD from the operator's side: read its letters, open one, send one again as a new request."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import nats.errors

from penstock.errors import OperatorError
from penstock.stack_locator import Connections
from penstock_shared.contracts import subjects
from penstock_shared.contracts.dead import DeadLetter, dead_id
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.contracts.requests import AdmissionReply, Rejected
from penstock_shared.contracts.streams import DEAD, Bucket
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import IdSource, SystemClock
from penstock_shared.runtime.dead import FIELD, data_subject_of
from penstock_shared.runtime.keyring import Keyring, read_root_key
from penstock_shared.runtime.kv import BucketStore
from penstock_shared.runtime.ordered import OrderedReader

_SOURCE = "/penstock/operator"
_ANSWERS_WITHIN_S = 10.0
_REPLAY_TYPE = "penstock.request.submit.v1"


@dataclass(frozen=True, slots=True)
class Grave:
    """One letter and its number in DEAD."""

    number: int
    letter: DeadLetter


class Graveyard:
    """The operator's view of DEAD."""

    def __init__(self, broker: Broker, connections: Connections) -> None:
        """Use an open connection; the root key is read only when content is asked for."""
        self._broker = broker
        self._connections = connections

    async def graves(self, tenant: str | None = None) -> list[Grave]:
        """List every letter, or one tenant's, oldest first."""
        wanted = subjects.EVERY_DEAD if tenant is None else subjects.dead_of(tenant)
        reader = OrderedReader(self._broker, DEAD, wanted)
        await reader.start()
        messages = [await reader.get() for _ in range(reader.pending_at_start)]
        await reader.stop()
        return [Grave(m.sequence, DeadLetter.model_validate_json(m.data)) for m in messages]

    async def grave(self, number: int) -> Grave:
        """Find one letter by its number.

        Raises:
            OperatorError: There is none.
        """
        for grave in await self.graves():
            if grave.number == number:
                return grave
        raise OperatorError(
            f"There is no dead letter {number}.", "See `penstock dead list` for those there are."
        )

    async def content(self, grave: Grave) -> bytes:
        """Decrypt a letter's payload with the root key.

        Raises:
            OperatorError: The key is not at hand, or the content was erased.
        """
        letter = grave.letter
        if self._connections.root_key_file is None:
            raise OperatorError(
                "The content is encrypted, and no root key is known.",
                "Set PENSTOCK_ROOT_KEY_FILE, or run on the stack's machine with --data-dir.",
            )
        keyring = Keyring(
            read_root_key(self._connections.root_key_file),
            BucketStore(self._broker, Bucket.DATA_KEYS),
            SystemClock(),
        )
        return await keyring.open(
            subjects.parse(letter.subject).tenant,
            data_subject_of(letter.stream),
            dead_id(letter.stream, letter.stream_seq),
            FIELD,
            letter.content,
        )

    async def replay(self, grave: Grave) -> str:
        """Submit a letter's payload again, as a new request; returns its request id.

        Raises:
            OperatorError: no router answers, or it is refused again; the message says why.
        """
        payload = await self.content(grave)
        tenant = subjects.parse(grave.letter.subject).tenant
        request_id = IdSource(SystemClock()).new()
        envelope = Envelope(id=request_id, source=_SOURCE, type=_REPLAY_TYPE)
        try:
            answer = await self._broker.client.request(
                subjects.submit(tenant),
                payload,
                timeout=_ANSWERS_WITHIN_S,
                headers=envelope.headers(),
            )
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise OperatorError("No router answers.", "See 'penstock ps'.") from error
        reply = AdmissionReply.model_validate_json(answer.data).reply
        if isinstance(reply, Rejected):
            raise OperatorError(
                f"It is refused again: {reply.error.message}", "What is wrong with it is in 'show'."
            )
        return reply.request_id


@asynccontextmanager
async def graveyard(connections: Connections) -> AsyncIterator[Graveyard]:
    """Connect, and turn the platform's errors into the operator's."""
    try:
        broker = await Broker.connect(connections.nats_url, name="operator")
        try:
            yield Graveyard(broker, connections)
        finally:
            await broker.close()
    except PenstockError as error:
        raise OperatorError(error.message, f"(error code: {error.code})") from error
