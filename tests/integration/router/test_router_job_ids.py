"""Jobs of different tenants never stand in each other's way."""

from __future__ import annotations

from tests.support.learning import routed_fact
from tests.support.router import IDS

from penstock_router.adapters.nats_request_log import NatsRequestLog
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.streams import JOBS
from penstock_shared.runtime.broker import Broker


async def test_the_same_request_id_of_two_tenants_is_two_jobs(broker: Broker) -> None:
    """Clients make the ids: what one tenant has sent must not keep another's from running (I1, I8).

    A repetition of its own is still swallowed.
    """
    log, request_id = NatsRequestLog(broker), IDS.new()
    for tenant in ("acme", "globex", "acme"):
        job = Job.from_routed(routed_fact(tenant, request_id), 1)
        await log.publish_job(job, source="/t", traceparent=None)
    info = await broker.jetstream.stream_info(JOBS, subjects_filter=">")
    assert info.state.subjects == {
        f"v1.{tenant}.jobs.small.standard": 1 for tenant in ("acme", "globex")
    }
