"""Reservations in billing's PostgreSQL: all that wait at a moment go in one statement (ADR 0021).

One statement is on its way at a time. What comes meanwhile waits for the next one, so batches
grow with the load and nobody waits for a timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg

from penstock_router import metrics
from penstock_router.domain.refusals import InTheWay, lasts_s, refusal
from penstock_router.ports import HeldRequest
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.errors import (
    PenstockError,
    PermanentError,
    SchemaError,
    UnavailableError,
)
from penstock_shared.contracts.quotas import QuotaPeriod
from penstock_shared.contracts.requests import RequestRouted
from penstock_shared.contracts.reservations import reservations_json
from penstock_shared.contracts.usage import Price
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.postgres import Postgres
from penstock_shared.runtime.telemetry import log

PAGE: Final = 200
"""Overdue reservations that are read at once."""
_BATCH: Final = 256
_MOST_WAITING: Final = 4 * _BATCH
"""While PostgreSQL is slow: the rest of what a router admits at once is for the other tenants."""
_ANSWER_S: Final = 3.0
"""How long one statement may take: whoever waits is told to come back."""
_RESERVE: Final = "select * from billing.reserve($1::jsonb)"
_OVERDUE: Final = "select * from billing.overdue_reservations($1, $2, $3, $4, $5)"
_NOT_READY: Final = (
    asyncpg.ObjectNotInPrerequisiteStateError,  # usage is being read from the log again
    asyncpg.SyntaxOrAccessError,  # billing has not made its functions, or not granted them
    asyncpg.InvalidSchemaNameError,
    PermanentError,  # the database refuses the service: an operator's mistake, no client's
)


@dataclass(frozen=True, slots=True)
class _Asked:
    routed: RequestRouted
    answer: asyncio.Future[None]

    @property
    def key(self) -> tuple[str, str]:
        return self.routed.tenant, self.routed.request_id


class PostgresQuotas:
    """A `QuotaGate`, and `OverdueReservations`."""

    def __init__(self, postgres: Postgres | None, clock: Clock) -> None:
        """Without a database nobody who has a quota is let in."""
        self._postgres = postgres
        self._clock = clock
        self._waiting: list[_Asked] = []
        self._work: asyncio.Task[None] | None = None

    async def reserve(self, tenant: TenantRecord, routed: RequestRouted) -> None:
        """Reserve what `routed.reserves` says of every quota of the tenant, or of none.

        When this raises UnavailableError, or is cancelled, it may be reserved or not: asking
        again reserves nothing twice, and what is never routed is ended (`handlers/orphans.py`).

        Raises:
            RateLimitedError: it does not fit now; it carries when to come back.
            TooLargeError: it never will.
            SchemaError: a value in it cannot be stored.
            UnavailableError: PostgreSQL does not answer, too many wait for it, or billing is
                reading the log again.
        """
        if not tenant.reserves:
            return
        try:
            await self._asked(routed)
        except UnavailableError:
            metrics.RESERVATIONS.labels("unavailable").inc()
            raise
        except PenstockError:
            metrics.RESERVATIONS.labels("refused").inc()
            raise
        metrics.RESERVATIONS.labels("granted").inc()

    async def overdue(self, before: datetime, after: HeldRequest | None) -> list[HeldRequest]:
        """A page of the requests whose deadline was before that, in order, from behind `after`.

        Raises:
            UnavailableError: PostgreSQL does not answer.
        """
        place = (
            (datetime.min.replace(tzinfo=UTC), "", uuid.UUID(int=0))
            if after is None
            else (after.deadline, after.tenant, uuid.UUID(after.request_id))
        )
        return [_held(row) for row in await self._fetch(_OVERDUE, before, *place, PAGE)]

    async def stop(self) -> None:
        """Leave what still waits without an answer, and close the connections."""
        if self._work is not None:
            self._work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._work
        if self._postgres is not None:
            await self._postgres.close()

    def _asked(self, routed: RequestRouted) -> asyncio.Future[None]:
        if "\0" in routed.data_subject:  # the one text of the tenant's own: no batch fails by it
            raise _not_storable()
        if len(self._waiting) >= _MOST_WAITING:
            raise _unavailable()
        asked = _Asked(routed, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._reserve_waiting(), name="reservations")
        return asked.answer

    async def _reserve_waiting(self) -> None:
        while batch := self._next_batch():
            metrics.RESERVATION_BATCH.observe(len(batch))
            await self._reserve_batch(batch)

    def _next_batch(self) -> list[_Asked]:
        """Each request once: a repetition at the same moment waits for the next batch."""
        batch: dict[tuple[str, str], _Asked] = {}
        later = []
        for asked in self._waiting:
            if asked.answer.done():  # who asked has gone
                continue
            if len(batch) < _BATCH and asked.key not in batch:
                batch[asked.key] = asked
            else:
                later.append(asked)
        self._waiting = later
        return list(batch.values())

    async def _reserve_batch(self, batch: Sequence[_Asked]) -> None:
        try:
            text = reservations_json(asked.routed for asked in batch)
            in_the_way = defaultdict(list)
            for row in await self._fetch(_RESERVE, text):
                in_the_way[row["tenant"], str(row["request_id"])].append(row)
            refused = {
                asked.key: self._refusal(in_the_way[asked.key], asked.routed)
                for asked in batch
                if asked.key in in_the_way
            }
        except SchemaError as error:
            if len(batch) == 1:
                _answer(batch[0], error)
                return
            for asked in batch:  # one tenant's odd value is nothing to the others (I8)
                await self._reserve_batch([asked])
        except Exception as error:  # noqa: BLE001  whoever waits must get an answer
            behind: list[_Asked] = []
            if isinstance(error, UnavailableError):  # they would only wait for the same
                behind = self._waiting
            else:
                log().error("quotas.failed", kind=type(error).__name__, exc_info=error)
            for asked in (*batch, *behind):
                _answer(asked, _unavailable())
        else:
            for asked in batch:
                _answer(asked, refused.get(asked.key))

    async def _fetch(self, query: str, *values: Any) -> list[Any]:
        if self._postgres is None:
            msg = "This router has no database for quotas: set PENSTOCK_POSTGRES_DSN."
            raise UnavailableError(msg, code="quotas_unavailable")
        with _translated():
            async with asyncio.timeout(_ANSWER_S):
                return await self._postgres.fetch(query, *values)

    def _refusal(self, rows: Sequence[Any], routed: RequestRouted) -> PenstockError:
        """Of all limits that are in the way the one that is for longest."""
        now = self._clock.now()
        return max(
            (refusal(_in_the_way(row), routed.accepted_at, now) for row in rows), key=lasts_s
        )


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except asyncpg.DataError as error:
        raise _not_storable() from error
    except (TimeoutError, *_NOT_READY) as error:
        log().warning("quotas.unavailable", kind=type(error).__name__)
        raise _unavailable() from error


def _in_the_way(row: Any) -> InTheWay:
    return InTheWay(
        unit=row["unit"],
        period=QuotaPeriod(row["period"]),
        most=row["most"],
        settled=int(row["settled"]),
        needed=int(row["needed"]),
    )


def _not_storable() -> SchemaError:
    return SchemaError("The request holds a value that cannot be stored.", code="not_storable")


def _unavailable() -> UnavailableError:
    """One for each who waits: an exception is raised in one place."""
    msg = "Quotas cannot be read now: try again."
    return UnavailableError(msg, code="quotas_unavailable")


def _answer(asked: _Asked, error: PenstockError | None) -> None:
    if asked.answer.done():
        return
    if error is None:
        asked.answer.set_result(None)
    else:
        asked.answer.set_exception(error)


def _held(row: Any) -> HeldRequest:
    return HeldRequest(
        request_id=str(row["request_id"]),
        tenant=row["tenant"],
        key_id=row["key_id"],
        data_subject=row["data_subject"],
        model=row["model"],
        price=Price(
            input_microusd_per_1k=row["input_microusd_per_1k"],
            output_microusd_per_1k=row["output_microusd_per_1k"],
        ),
        routed_at=row["accepted_at"],
        deadline=row["deadline"],
    )
