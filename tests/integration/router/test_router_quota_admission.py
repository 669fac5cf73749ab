"""Tenants with quotas at a router's front door: reserved before routed, refused truthfully (I4)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.support.billing import eventually
from tests.support.credits import grant, prepaid
from tests.support.quotas import QuotaRig, quota_rig, tenant
from tests.support.router import (
    IDS,
    StartRouter,
    admit,
    last_of,
    model_record,
    put_model,
    routed_of,
    submit,
)

from penstock_shared.contracts.accounts import SuspensionReason, TenantStatus
from penstock_shared.contracts.requests import Accepted, Rejected
from penstock_shared.contracts.reservations import RESERVED_HEADER
from penstock_shared.contracts.streams import EVENTS, Bucket
from penstock_shared.contracts.usage import Price
from penstock_shared.runtime import kv
from penstock_shared.runtime.broker import Broker

ACME = tenant("acme", "tokens/day=100")
FREE = tenant("globex")


@pytest.fixture
async def rig(broker: Broker, postgres_dsn: str) -> AsyncIterator[QuotaRig]:
    """A model with 64 tokens of context, a tenant with room for one such request, and another."""
    await put_model(broker, model_record())
    for record in (ACME, FREE):
        await kv.put(broker, Bucket.TENANTS, record.tenant, record.model_dump_json().encode())
    async with quota_rig(postgres_dsn) as made:
        await made.set_quotas(ACME)
        yield made


async def test_what_may_be_used_is_reserved_before_it_is_routed(
    rig: QuotaRig, broker: Broker, start_router: StartRouter, postgres_dsn: str
) -> None:
    """The fact says what was reserved; a repetition reserves nothing; the next one does not fit."""
    async with start_router(postgres_dsn=postgres_dsn):
        request_id = IDS.new()
        for _ in range(2):
            assert isinstance(await admit(broker, request_id), Accepted)
        (reserve,) = (await routed_of(broker, request_id)).reserves
        assert reserve.tokens == 64
        assert RESERVED_HEADER in (await last_of(broker, request_id)).headers
        state = await rig.state()
        assert (state.settled, state.reserved) == (0, 64)
        refused = await admit(broker, IDS.new())
        assert isinstance(refused, Rejected)
        assert (refused.http_status, refused.error.code) == (429, "insufficient_quota")
        assert refused.retry_after_s == 1.0
        other = IDS.new()
        assert isinstance(await admit(broker, other, tenant="globex"), Accepted)
        assert not (await routed_of(broker, other, "globex")).reserves
        assert RESERVED_HEADER not in (await last_of(broker, other, "globex")).headers


async def test_without_a_database_only_tenants_with_quotas_are_refused(
    rig: QuotaRig, broker: Broker, start_router: StartRouter
) -> None:
    """Nothing is written for them: a refusal binds no id."""
    async with start_router():
        before = (await broker.jetstream.stream_info(EVENTS)).state.messages
        refused = await admit(broker, IDS.new())
        assert isinstance(refused, Rejected)
        assert (refused.http_status, refused.error.code) == (503, "quotas_unavailable")
        assert (await broker.jetstream.stream_info(EVENTS)).state.messages == before
        assert isinstance(await admit(broker, IDS.new(), tenant="globex"), Accepted)


async def test_who_pays_in_advance_goes_as_far_as_the_credit(
    rig: QuotaRig, broker: Broker, start_router: StartRouter, postgres_dsn: str
) -> None:
    """A tenant without a quota of its own, whose plan allows no overage, is reserved for, too."""
    dear = Price(input_microusd_per_1k=1_000, output_microusd_per_1k=1_000)
    await put_model(broker, model_record().model_copy(update={"price": dear}))
    hooli = await prepaid(rig, "hooli")
    await kv.put(broker, Bucket.TENANTS, "hooli", hooli.model_dump_json().encode())
    async with start_router(postgres_dsn=postgres_dsn):
        refused = await admit(broker, IDS.new(), tenant="hooli")
        assert isinstance(refused, Rejected)
        assert (refused.http_status, refused.error.code) == (429, "insufficient_credit")
        assert refused.retry_after_s is not None
        assert refused.retry_after_s >= 1
        await grant(rig, 100, of="hooli")
        assert isinstance(await admit(broker, IDS.new(), tenant="hooli"), Accepted)
        held = await admit(broker, IDS.new(), tenant="hooli")
        assert isinstance(held, Rejected)
        assert (held.error.code, held.retry_after_s) == ("insufficient_credit", 1.0)


async def test_a_suspended_tenant_is_told_why(
    rig: QuotaRig, broker: Broker, start_router: StartRouter
) -> None:
    """403 within a second of its record's change, whatever it would have been let in for."""
    async with start_router():
        hello = b'{"input": "hello"}'
        assert isinstance(await submit(broker, IDS.new(), hello, tenant="globex"), Accepted)
        for reason, code in (
            (SuspensionReason.PAST_DUE, "tenant_past_due"),
            (SuspensionReason.OPERATOR, "tenant_suspended"),
        ):
            gone = FREE.model_copy(
                update={"status": TenantStatus.SUSPENDED, "suspended_reason": reason}
            )
            await kv.put(broker, Bucket.TENANTS, "globex", gone.model_dump_json().encode())

            async def is_told(expected: str = code) -> bool:
                answer = await submit(broker, IDS.new(), hello, tenant="globex")
                return isinstance(answer, Rejected) and (
                    answer.http_status,
                    answer.error.code,
                ) == (403, expected)

            await eventually(is_told, 1)
