"""From an admission to `routed`, before anything is written: from memory alone, no I/O."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter

from penstock_router import metrics
from penstock_router.domain.admission import deadline_s_of, refuse_stale_id, routed_fact
from penstock_router.domain.breakers import Breakers
from penstock_router.domain.classifier import Classifier
from penstock_router.domain.confidence import Confidences
from penstock_router.domain.decision import decide
from penstock_router.domain.fair_share import fair_lane
from penstock_router.domain.features import features_of
from penstock_router.domain.learned import Learned
from penstock_router.domain.lexicon import Lexicon
from penstock_router.domain.modes import Modes
from penstock_router.domain.open_requests import OpenRequests
from penstock_router.domain.prospects import Asked, Platform
from penstock_router.domain.queue_load import QueueLoad
from penstock_router.domain.reserves import reserves_of
from penstock_router.domain.tenant_prices import at_prices
from penstock_shared.contracts import subjects
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.output_schema import refuse_unwieldy_schema
from penstock_shared.contracts.plans import TenantPrices
from penstock_shared.contracts.requests import Admission, Content, RequestRouted
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.kv import BucketMirror


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """From the router's settings."""

    default_deadline_s: float
    fair_in_flight: int
    queue_limit: int


@dataclass(frozen=True, slots=True)
class Knowledge:
    """All that decisions are made from, kept fresh by others."""

    models: BucketMirror[ModelRecord]
    prices: BucketMirror[TenantPrices]
    learned: Learned
    lexicon: Lexicon
    classifier: Classifier
    confidences: Confidences
    breakers: Breakers
    modes: Modes
    open_requests: OpenRequests
    loads: defaultdict[str, QueueLoad]


class Routes:
    """Decides model, plan and lane of one request after the other."""

    def __init__(self, knowledge: Knowledge, limits: AdmissionLimits, clock: Clock) -> None:
        self._known = knowledge
        self._limits = limits
        self._clock = clock

    def route(
        self, subject: str, record: TenantRecord | None, admission: Admission, content: Content
    ) -> RequestRouted:
        """The first fact of the request whose facts stand on `subject`, should it be new.

        Raises:
            PermanentError: the request cannot be served as it is.
            UnavailableError: not now: the mode, the model or its queue.
        """
        started = perf_counter()
        try:
            return self._route(subject, record, admission, content)
        finally:
            metrics.DECISION_LATENCY.observe((perf_counter() - started) * 1000)

    def _route(
        self, subject: str, record: TenantRecord | None, admission: Admission, content: Content
    ) -> RequestRouted:
        known, limits, now = self._known, self._limits, self._clock.now()
        tenant = subjects.parse(subject).tenant
        refuse_stale_id(admission.request_id, now)
        _refuse_unwieldy(content)
        weight = 1 if record is None else record.weight
        lane = fair_lane(
            admission.lane,
            open_requests=known.open_requests.of_tenant(tenant),
            fair_in_flight=limits.fair_in_flight,
            weight=weight,
        )
        deadline_s = deadline_s_of(admission, limits.default_deadline_s)
        platform = self._platform(tenant, now)
        decided = decide(
            Asked(
                tenant=tenant,
                request_id=admission.request_id,
                data_subject=admission.data_subject,
                key_id=admission.key_id,
                model=admission.model,
                content=content,
                features=features_of(content, known.lexicon),
                lane=lane,
                max_output_tokens=admission.sampling.max_output_tokens,
                deadline_s=deadline_s,
                now=now,
            ),
            platform,
            known.learned.of(tenant),
        )
        if subject not in known.open_requests:  # a repetition brings no new job
            self._refuse_overload(platform, decided.models[0], lane, deadline_s)
        return routed_fact(
            tenant,
            admission,
            decided,
            lane=lane,
            weight=weight,
            now=now,
            deadline_s=deadline_s,
            reserves=(
                reserves_of(content, admission.sampling, decided.models)
                if record is not None and record.reserves
                else ()
            ),
        )

    def _platform(self, tenant: str, now: datetime) -> Platform:
        """With the models at the tenant's own prices: all that follows from a price uses them."""
        known = self._known
        return Platform(
            at_prices(known.models.values(), known.prices.get(tenant), now),
            known.classifier,
            known.confidences,
            known.breakers,
            known.modes,
            known.loads,
            self._limits.queue_limit,
        )

    def _refuse_overload(
        self, platform: Platform, model: ModelRecord, lane: Lane, deadline_s: float
    ) -> None:
        self._known.modes.refuse(lane, self._clock.monotonic_s())
        try:
            self._known.loads[model.name].refuse_if_overloaded(
                model.name, lane, limit=platform.limit_of(model), deadline_s=deadline_s
            )
        except UnavailableError:
            metrics.SHED.labels(model.name).inc()
            raise


def _refuse_unwieldy(content: Content) -> None:
    refuse_unwieldy_schema(content.output_schema, "output_schema")
    for index, tool in enumerate(content.tools):
        refuse_unwieldy_schema(tool.parameters, f"tools[{index}].parameters")
