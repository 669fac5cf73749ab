"""Follows EVENTS and learns: one fold, in the order of the log, over the facts that teach."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

from pydantic import ValidationError

from penstock_router import metrics
from penstock_router.adapters.learned_snapshots import LearnedSnapshots
from penstock_router.adapters.own_facts import OwnFacts
from penstock_router.adapters.tasks import Tasks
from penstock_router.domain.learned import Learned
from penstock_router.domain.quality import Quality
from penstock_router.ports import RequestLog
from penstock_shared.contracts import subjects
from penstock_shared.contracts.errors import PenstockError, TransientError
from penstock_shared.contracts.feedback import ResponseFeedback
from penstock_shared.contracts.requests import (
    TERMINAL_TYPES,
    AttemptFailed,
    Decision,
    RequestFact,
    RequestRouted,
)
from penstock_shared.contracts.routing import POLICY_FACT, ROUTER_TOPIC, PolicySet
from penstock_shared.contracts.streams import EVENTS
from penstock_shared.runtime.broker import Broker, StoredMessage
from penstock_shared.runtime.ordered import OrderedReader
from penstock_shared.runtime.request_log import UnreadableFactError
from penstock_shared.runtime.telemetry import log

_REQUEST_TYPES: Final = TERMINAL_TYPES | {RequestRouted.TYPE, AttemptFailed.TYPE}
_CATCH_UP_S: Final = 10.0
"""How long a start waits for the fold; until it is whole, decisions rest on what there is."""
_BURST: Final = 8
"""Facts between two looks at what else the process has to do: about half a millisecond."""
_DECISIONS_KEPT: Final = 10_000
"""The latest decisions, at about 5 kB each; an older one is fetched when its answer is judged."""
_RETRY_S: Final = 0.5
_SAVE_AT_STOP_S: Final = 5.0


class Learner:
    """Keeps `learned` up to date with the event log, and snapshots of it in the bucket.

    Facts are folded strictly one after the other, also where one has to wait for the log: two
    replicas that have read as far have learned the same. A fact that cannot be read, or that
    learning from fails, is counted, logged and passed over.
    """

    def __init__(
        self,
        broker: Broker,
        request_log: RequestLog,
        learned: Learned,
        *,
        save_every_s: float,
        policy_copies: Callable[[], Iterable[tuple[PolicySet, int]]] = tuple,
        on_request: Callable[[RequestFact, datetime], None] = lambda *_: None,
        quality: Quality | None = None,
        own: OwnFacts | None = None,
    ) -> None:
        """`policy_copies`, with the sequences of their facts, stand in for what was not read.

        `on_request` hears each fact of a request and when it was stored, in order.

        `quality` takes in what became of an attempt or an answer, right after it was learned.

        `own` knows the facts that this replica wrote.
        """
        self._broker = broker
        self._log = request_log
        self._learned = learned
        self._snapshots = LearnedSnapshots(broker, learned)
        self._save_every_s = save_every_s
        self._policy_copies = policy_copies
        self._on_request = on_request
        self._quality = quality or Quality()
        self._own = own or OwnFacts()
        self._decisions: dict[tuple[str, str], Decision] = {}
        """By tenant and request, oldest first."""
        self._reader: OrderedReader | None = None
        self._caught_up = asyncio.Event()
        self._events_seq = 0
        self._tasks = Tasks()

    @property
    def events_seq(self) -> int:
        """The sequence of the last fact of EVENTS that was folded."""
        return self._events_seq

    @property
    def behind(self) -> int:
        """How many facts are in EVENTS and not yet folded, as far as this replica knows."""
        return 0 if self._reader is None else self._reader.behind

    async def start(self) -> None:
        """Load the snapshots, read what follows them (for ten seconds at most), then follow."""
        start_seq = await self._snapshots.restore(self._policy_copies())
        self._events_seq = start_seq - 1
        self._reader = OrderedReader(
            self._broker, EVENTS, subjects.EVERY_EVENT, start_seq=start_seq
        )
        await self._reader.start()
        to_read = self._reader.pending_at_start
        self._tasks.spawn("learner-follow", self._follow(self._reader))
        metrics.LEARNER_BEHIND.set_function(lambda: self.behind)
        try:
            async with asyncio.timeout(_CATCH_UP_S):
                await self._caught_up.wait()
            log().info("learner.caught_up", events_seq=self._events_seq, read=to_read)
        except TimeoutError:
            log().warning("learner.still_catching_up", of=to_read, behind=self.behind)
            for policy, sequence in self._policy_copies():  # what is learned may wait, rules not
                self._learned.foresee_policy(policy, sequence)
        self._tasks.spawn("learner-save", self._keep_saving())

    def problems(self) -> list[str]:
        """Which of its tasks are gone."""
        return self._tasks.gone()

    async def stop(self) -> None:
        """Stop, and save once more."""
        await self._tasks.stop()
        if self._reader is None:
            return
        await self._reader.stop()
        try:
            async with asyncio.timeout(_SAVE_AT_STOP_S):
                await self._snapshots.save(self._events_seq, at_once=True)
        except (PenstockError, TimeoutError) as error:
            log().warning("learner.not_saved", kind=type(error).__name__)

    async def _keep_saving(self) -> None:
        while True:
            await asyncio.sleep(self._save_every_s)
            try:
                await self._snapshots.save(self._events_seq)
            except PenstockError as error:
                log().warning("learner.not_saved", code=error.code)

    async def _follow(self, reader: OrderedReader) -> None:
        to_read = reader.pending_at_start
        while True:
            for _ in range(_BURST):
                if to_read <= 0:
                    self._caught_up.set()
                await self._fold(await reader.get())
                to_read -= 1
            await asyncio.sleep(0)

    async def _fold(self, message: StoredMessage) -> None:
        try:
            await self._teach(message)
        except (ValidationError, UnreadableFactError) as error:
            self._reject(message, error)  # without its text: it quotes the fact
        except Exception as error:  # noqa: BLE001  one fact must not end the learning
            self._reject(message, error, exc_info=error)
        self._events_seq = message.sequence

    def _reject(self, message: StoredMessage, error: Exception, **more: Exception) -> None:
        metrics.FACTS_REJECTED.inc()
        kind = type(error).__name__
        log().error("learner.fact_rejected", sequence=message.sequence, kind=kind, **more)

    async def _teach(self, message: StoredMessage) -> None:
        kind = message.event_type
        if kind in _REQUEST_TYPES:
            await self._request(message)
        elif kind == ResponseFeedback.TYPE:
            await self._feedback(message)
        elif kind == PolicySet.TYPE:
            policy = PolicySet.model_validate_json(message.data)
            _require_place(message, subjects.topic_event(policy.tenant, ROUTER_TOPIC, POLICY_FACT))
            self._learned.fold_policy(policy, message.sequence)

    async def _request(self, message: StoredMessage) -> None:
        fact = self._own.read(message)
        _require_place(message, subjects.request_event(fact.tenant, fact.request_id))
        if message.time is not None:
            self._on_request(fact, message.time)
        if self._knows(fact.tenant, message):
            return
        if isinstance(fact, RequestRouted):
            self._keep(fact)
            self._learned.fold_routed(fact, message.sequence)
            return
        decision = await self._decision(fact.tenant, fact.request_id)
        if decision is None:
            return  # a reservation without a request has an end, and no beginning
        if isinstance(fact, AttemptFailed):
            outcome = self._learned.fold_attempt_failed(fact, decision, message.sequence)
        else:
            outcome = self._learned.fold_ended(fact, decision, message.sequence)
        if outcome is not None:
            self._quality.attempted(outcome, decision)

    async def _feedback(self, message: StoredMessage) -> None:
        fact = ResponseFeedback.model_validate_json(message.data)
        _require_place(message, subjects.feedback_event(fact.tenant, fact.request_id))
        if self._knows(fact.tenant, message):
            return
        decision = await self._decision(fact.tenant, fact.request_id)
        if decision is None:
            return
        outcome = self._learned.fold_feedback(fact, decision, message.sequence)
        if outcome is not None:
            self._quality.judged(outcome, decision)

    def _knows(self, tenant: str, message: StoredMessage) -> bool:
        """Whether the tenant's snapshot had seen it already."""
        return message.sequence <= self._learned.of(tenant).seq

    def _keep(self, routed: RequestRouted) -> None:
        if len(self._decisions) >= _DECISIONS_KEPT:
            del self._decisions[next(iter(self._decisions))]
        self._decisions[routed.tenant, routed.request_id] = routed.decision

    async def _decision(self, tenant: str, request_id: str) -> Decision | None:
        """By which the request was routed; None where the log has it no more.

        It waits until the log answers: to go on without would be to learn something else than
        the other replicas.
        """
        kept = self._decisions.get((tenant, request_id))
        while kept is None:
            try:
                routed = await self._log.routed(tenant, request_id)
            except UnreadableFactError:
                raise
            except TransientError as error:
                log().info("learner.waits", code=error.code)
                await asyncio.sleep(_RETRY_S)
            else:
                return None if routed is None else routed.decision
        return kept


def _require_place(message: StoredMessage, subject: str) -> None:
    """Refuse a fact that lies on another subject than its own: of another tenant's, say (I8)."""
    if message.subject != subject:
        msg = "A fact lies on a subject that is not its own."
        raise UnreadableFactError(msg)
