"""Golden JSON per event version: what was once published must still be read, and look the same.

A breaking change gets a new version in its type, and the old file stays. A field that is added has
a default: files from before it stay as they are, and one that has it comes beside them.
To add a golden file for a new contract: `python -m tests.contracts.test_contracts_golden`.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from pydantic import BaseModel

from penstock_shared.contracts.account_commands import QuotaList
from penstock_shared.contracts.account_facts import (
    KeyCreated,
    KeyRevoked,
    KeyRotated,
    TenantCreated,
    TenantUpdated,
)
from penstock_shared.contracts.accounts import (
    IdentityProvider,
    KeyRecord,
    Role,
    SuspensionReason,
    TenantRecord,
    TenantStatus,
)
from penstock_shared.contracts.audit import AuditCheckpointed
from penstock_shared.contracts.billing_facts import (
    ChargesAdjusted,
    CreditGranted,
    InvoiceIssued,
    PaymentFailed,
    PaymentRefunded,
    PaymentSucceeded,
    PlanAssigned,
    PlanPublished,
    QuotaReached,
    StandingChanged,
)
from penstock_shared.contracts.credits import AdjustmentMade, CreditGrant, CreditKind
from penstock_shared.contracts.dead import DeadLetter
from penstock_shared.contracts.errors import ErrorBody, ErrorReply
from penstock_shared.contracts.feedback import FeedbackGiven, GiveFeedback, ResponseFeedback
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.models import (
    EmbeddingOptions,
    ModelKind,
    ModelLayout,
    ModelLimits,
    ModelManifest,
    ModelRecord,
    ModelState,
    ResidentModel,
    TranslationOptions,
    WorkerModels,
)
from penstock_shared.contracts.payments import Standing
from penstock_shared.contracts.plans import (
    Meter,
    PlanTerms,
    PlanVersion,
    PricesFrom,
    Subscription,
    TenantPrices,
    Tier,
    TieredCharge,
    Tiering,
)
from penstock_shared.contracts.quotas import (
    Quota,
    QuotaPeriod,
    QuotaState,
    QuotaUnit,
    Reserve,
)
from penstock_shared.contracts.requests import (
    Accepted,
    Admission,
    AdmissionReply,
    AttemptFailed,
    Decision,
    NextAttempt,
    Rejected,
    RequestEnded,
    RequestRouted,
    Sampling,
    Status,
    Timings,
)
from penstock_shared.contracts.responses import FinalFrame, RequestState
from penstock_shared.contracts.routing import (
    ArmState,
    Candidate,
    Choose,
    Experiment,
    LearnedModel,
    Mode,
    ModeChanged,
    PolicyRules,
    PolicySet,
    PolicyState,
    RollbackPolicy,
    SetPolicy,
    ShowPolicy,
)
from penstock_shared.contracts.stored import ResponseDeleted
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.submissions import Submission
from penstock_shared.contracts.usage import Price, Usage, UsageReport, UsageRow
from penstock_shared.contracts.usage_queries import (
    BucketWidth,
    QueryUsage,
    UsageBucket,
    UsageGroup,
    UsagePage,
    UsageSums,
)

GOLDEN: Final = Path(__file__).parent / "golden"
NOW: Final = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
REQUEST: Final = "0193e7a0-0000-7000-8000-000000000001"
RUN: Final = "0193e7a0-0000-7000-8000-000000000002"
PRICE: Final = Price(input_microusd_per_1k=50, output_microusd_per_1k=200)
ERROR: Final = ErrorBody(message="Too long.", type="invalid_request_error", code="too_long")

TENANT: Final = TenantRecord(
    tenant="acme",
    name="Acme",
    status=TenantStatus.SUSPENDED,
    tokens_per_minute=100_000,
    user_requests_per_minute=60,
    user_tokens_per_minute=10_000,
    max_connections=50,
    weight=2,
    identity_providers=(
        IdentityProvider(
            issuer="https://id.acme.example",
            audiences=("penstock",),
            role_claim="realm_access.roles",
            roles={"ml-admins": Role.ADMIN},
            default_role=Role.MEMBER,
        ),
    ),
    created_at=NOW,
)
PLAN: Final = PlanVersion(
    plan="team",
    version=2,
    terms=PlanTerms(
        title="Team",
        fee_microusd=20_000_000,
        included_microusd=5_000_000,
        minimum_microusd=25_000_000,
        overage=True,
        prices={"penstock-small": PRICE},
        tiers=(
            TieredCharge(
                model="penstock-large",
                meter=Meter.OUTPUT_TOKENS,
                tiering=Tiering.VOLUME,
                tiers=(
                    Tier(up_to=1_000_000, microusd=300),
                    Tier(microusd=200, flat_microusd=1_000),
                ),
            ),
        ),
        quotas=(Quota(unit=QuotaUnit.TOKENS, period=QuotaPeriod.DAY, limit=1_000_000),),
    ),
    published_at=NOW,
)
ROUTED: Final = RequestRouted(
    request_id=REQUEST,
    tenant="acme",
    key_id="key-1",
    data_subject="user-1",
    lane=Lane.INTERACTIVE,
    attempt=1,
    decision=Decision(
        policy="rule-v1",
        model="penstock-small",
        probability=1.0,
        reason="difficulty 0.20 < 1.0",
        features={"words": 5.0},
    ),
    price=PRICE,
    sampling=Sampling(max_output_tokens=64, temperature=0.5, top_p=0.9),
    content="1.c2VhbGVk",
    accepted_at=NOW,
    deadline=NOW,
    weight=3,
    final_attempt=False,
    min_confidence=0.6,
)
ENDED: Final = RequestEnded(
    request_id=REQUEST,
    tenant="acme",
    key_id="key-1",
    data_subject="user-1",
    model="penstock-small",
    attempt=1,
    run=RUN,
    status=Status.COMPLETED,
    reason="stop",
    usage=Usage(input_tokens=12, output_tokens=3),
    price=PRICE,
    output="1.b3V0cHV0",
    delta_ends=(3, 5, 8),
    timings=Timings(queued_ms=1.5, first_token_ms=4.0, total_ms=9.25),
    confidence=0.875,
    routed_at=NOW,
    ended_at=NOW,
)
ATTEMPT_FAILED: Final = AttemptFailed(
    request_id=REQUEST,
    tenant="acme",
    key_id="key-1",
    data_subject="user-1",
    model="penstock-small",
    attempt=1,
    run=RUN,
    reason="schema",
    keyword="required",
    detail="1.ZGV0YWls",
    usage=Usage(input_tokens=12, output_tokens=3),
    price=PRICE,
    output="1.b3V0cHV0",
    timings=Timings(queued_ms=1.5, first_token_ms=4.0, total_ms=9.25),
    confidence=0.5,
    routed_at=NOW,
    failed_at=NOW,
)
PLANNED: Final = ROUTED.model_copy(
    update={
        "decision": Decision(
            policy="learned-v1",
            model="penstock-small",
            probability=0.75,
            reason="least expected cost",
            features={"token_count": 5.0, "novelty_score": 0.5},
            context="AH8B",
            shape="short-strict",
            candidates=(
                Candidate(
                    model="penstock-small",
                    p_correct=0.5,
                    prior=0.625,
                    cost_microusd=10.5,
                    probability=0.75,
                ),
                Candidate(
                    model="penstock-large", p_correct=0.875, cost_microusd=99.0, probability=0.25
                ),
            ),
            experiment="cheaper",
            arm="candidate",
            expected_cost_microusd=60.0,
            exploration_microusd=1.5,
            learned_seq=40,
        ),
        "plan": (NextAttempt(model="penstock-large", price=PRICE, min_confidence=0.25),),
        "reserves": (
            Reserve(attempt=1, tokens=76, microusd=14),
            Reserve(attempt=2, tokens=76, microusd=14),
        ),
    }
)
FAILED_SECOND: Final = ATTEMPT_FAILED.model_copy(
    update={"attempt": 2, "used_before": Usage(input_tokens=12, output_tokens=7)}
)
SECOND_JOB: Final = Job.after(PLANNED, ATTEMPT_FAILED, 42)
assert SECOND_JOB is not None
RULES: Final = PolicyRules(
    choose=Choose.RULE,
    models=("penstock-small", "penstock-large"),
    error_penalty_microusd=500,
    exploration_share=0.125,
    max_attempts=3,
    min_confidence=0.5,
)
EXPERIMENT: Final = Experiment(id="cheaper", kind="ab", candidate=RULES, share=0.25)
CONTRACTS: Final[dict[str, BaseModel]] = {
    "request.routed.v1": ROUTED,
    "request.routed.planned.v1": PLANNED,
    "request.ended.escalated.v1": ENDED.model_copy(
        update={"attempt": 3, "used_before": FAILED_SECOND.used_so_far}
    ),
    "attempt.failed.second.v1": FAILED_SECOND,
    "job.run.second.v1": SECOND_JOB,
    "response.feedback.v1": ResponseFeedback(
        request_id=REQUEST,
        tenant="acme",
        key_id="key-1",
        model="penstock-small",
        attempt=2,
        score=0.75,
        given_at=NOW,
    ),
    "give_feedback.v1": GiveFeedback(request_id=REQUEST, score=0.75),
    "feedback_given.v1": FeedbackGiven(request_id=REQUEST, score=0.75, given_at=NOW),
    "router.policy_set.v1": PolicySet(
        tenant="acme",
        rules=RULES,
        experiment=EXPERIMENT,
        reason="operator",
        previous=PolicyRules(),
        evidence={"requests": 120.0},
        past_experiments=("before",),
        set_at=NOW,
    ),
    "router.mode_changed.v1": ModeChanged(
        instance="router-1",
        mode=Mode.CHEAP_ONLY,
        why="the breaker of penstock-large is open",
        changed_at=NOW,
    ),
    "router.show_policy.v1": ShowPolicy(tenant="acme"),
    "router.set_policy.v1": SetPolicy(
        tenant="acme", rules=RULES, experiment=EXPERIMENT, based_on=7
    ),
    "router.rollback_policy.v1": RollbackPolicy(tenant="acme", based_on=7),
    "router.policy_state.v1": PolicyState(
        tenant="acme",
        rules=RULES,
        experiment=EXPERIMENT,
        sequence=7,
        reason="promoted",
        evidence={"requests": 120.0},
        previous=PolicyRules(),
        arms=(
            ArmState(
                arm="candidate",
                requests=12,
                failures=1,
                mean_latency_ms=250.5,
                mean_cost_microusd=None,
            ),
        ),
        models=(
            LearnedModel(
                model="penstock-small", observations=20, success_rate=0.75, output_tokens=None
            ),
        ),
        events_seq=99,
    ),
    "quota_list.v1": QuotaList(
        quotas=(
            QuotaState(
                unit=QuotaUnit.MICROUSD,
                period=QuotaPeriod.DAY,
                limit=1_000,
                tenant="acme",
                settled=700,
                reserved=200,
                left=100,
                resets_at=NOW,
            ),
        )
    ),
    "tenant.suspended.v1": TenantRecord(
        tenant="acme",
        name="Acme",
        status=TenantStatus.SUSPENDED,
        suspended_reason=SuspensionReason.PAST_DUE,
        quotas=(Quota(unit=QuotaUnit.TOKENS, period=QuotaPeriod.DAY, limit=1_000, soft=True),),
        limited_from=NOW.date(),
        created_at=NOW,
    ),
    "tenant.quotas.v1": TENANT.model_copy(
        update={"quotas": (Quota(unit=QuotaUnit.TOKENS, period=QuotaPeriod.MONTH, limit=10**6),)}
    ),
    "request.ended.v1": ENDED,
    "attempt.failed.v1": ATTEMPT_FAILED,
    "job.run.v1": Job.from_routed(ROUTED, 41),
    "admission.v1": Admission(
        request_id=REQUEST, key_id="key-1", data_subject="user-1", content="1.c2VhbGVk"
    ),
    "admission_reply.accepted.v1": AdmissionReply(
        reply=Accepted(request_id=REQUEST, model="penstock-small", accepted_at=NOW)
    ),
    "admission_reply.rejected.v1": AdmissionReply(
        reply=Rejected(http_status=429, error=ERROR, retry_after_s=1.5)
    ),
    "submission.v1": Submission(input="hello", instructions="be brief"),
    "frame.final.v1": FinalFrame.from_terminal(ENDED, "onetwofo"),
    "request_state.v1": RequestState(
        request_id=REQUEST, status="in_progress", model="penstock-small"
    ),
    "dead.letter.v1": DeadLetter(
        stream="INGRESS",
        stream_seq=7,
        subject="v1.acme.requests.queue",
        headers={"ce-id": "x"},
        deliveries=1,
        error=ERROR,
        content="1.cG9pc29u",
        died_at=NOW,
    ),
    "audit.checkpointed.v1": AuditCheckpointed(
        tree_size=9, root_hash="cm9vdA==", events_seq=9, checkpoint="penstock.local/audit\n9\n"
    ),
    "tenant.v1": TENANT,
    "key.v1": KeyRecord(
        key_id="key-1",
        tenant="acme",
        name="first",
        hint="abcd",
        role=Role.READ_ONLY,
        created_at=NOW,
        lifetime_s=86_400,
        expires_at=NOW + timedelta(days=1),
    ),
    "account.tenant_created.v1": TenantCreated(
        tenant="acme", name="Acme", requests_per_minute=600, created_at=NOW
    ),
    "account.tenant_updated.v1": TenantUpdated(
        tenant="acme", changed=("status", "weight"), record=TENANT, updated_at=NOW
    ),
    "account.key_created.v1": KeyCreated(
        tenant="acme",
        key_id="key-1",
        name="first",
        role=Role.ADMIN,
        expires_at=NOW + timedelta(days=1),
        by="sub-0a1b",
        created_at=NOW,
    ),
    "account.key_rotated.v1": KeyRotated(
        tenant="acme",
        key_id="key-1",
        successor="key-2",
        expires_at=NOW + timedelta(days=1),
        by="key-3",
        rotated_at=NOW,
    ),
    "account.key_revoked.v1": KeyRevoked(tenant="acme", key_id="key-1", by="key-3", revoked_at=NOW),
    "billing.payment_succeeded.v1": PaymentSucceeded(
        tenant="acme",
        month="2026-10",
        payment_id=REQUEST,
        provider="stripe",
        cents=1_234,
        owed_cents=0,
        succeeded_at=NOW,
    ),
    "billing.payment_failed.v1": PaymentFailed(
        tenant="acme",
        month="2026-10",
        payment_id=REQUEST,
        provider="braintree",
        attempt=1,
        cents=1_234,
        failure="2001",
        next_try_at=NOW,
        failed_at=NOW,
    ),
    "billing.payment_refunded.v1": PaymentRefunded(
        tenant="acme",
        month="2026-10",
        payment_id=REQUEST,
        refund_id=RUN,
        provider="braintree",
        cents=34,
        refunded_at=NOW,
    ),
    "billing.standing_changed.v1": StandingChanged(
        tenant="acme",
        before=Standing.PAST_DUE,
        standing=Standing.GRACE,
        failing_since=NOW,
        suspends_at=NOW,
        changed_at=NOW,
    ),
    "billing.invoice_issued.v1": InvoiceIssued(
        tenant="acme",
        month="2026-11",
        number="acme-2026-11",
        subtotal_microusd=7_000,
        credit_microusd=1_000,
        due_microusd=6_000,
        events_seq=42,
        issued_at=NOW,
    ),
    "billing.credit_granted.v1": CreditGranted(
        tenant="acme",
        grant=CreditGrant(
            grant_id=REQUEST,
            tenant="acme",
            kind=CreditKind.PREPAID,
            microusd=5_000_000,
            spent_microusd=0,
            expired_microusd=0,
            priority=100,
            expires_on=NOW.date(),
            reference="order 17",
            granted_at=NOW,
        ),
    ),
    "billing.charges_adjusted.v1": ChargesAdjusted(
        tenant="acme",
        adjustment=AdjustmentMade(
            tenant="acme",
            month="2026-11",
            microusd=-40,
            reason="outage on the 3rd",
            reference="case 9",
            made_at=NOW,
        ),
    ),
    "billing.quota_reached.v1": QuotaReached(
        tenant="acme",
        quota=Quota(unit=QuotaUnit.TOKENS, period=QuotaPeriod.DAY, limit=1_000, soft=True),
        percent=80,
        settled=801,
        begins_on=NOW.date(),
        resets_at=NOW + timedelta(days=1),
        reached_at=NOW,
    ),
    "billing.plan_published.v1": PlanPublished(tenant="platform", version=PLAN),
    "billing.plan_assigned.v1": PlanAssigned(
        tenant="acme",
        subscription=Subscription(
            tenant="acme", from_day=NOW.date(), plan="team", version=2, terms=PLAN.terms
        ),
        assigned_at=NOW,
    ),
    "tenant_prices.v1": TenantPrices(
        tenant="acme",
        changes=(
            PricesFrom(
                from_day=NOW.date(), plan="team", version=2, prices={"penstock-small": PRICE}
            ),
        ),
    ),
    "model.v1": ModelRecord(
        name="penstock-small",
        version="2",
        parameters=1_000_000,
        context_tokens=1024,
        size_bytes=2_000_000,
        price=PRICE,
        created_unix_s=1_795_000_000,
        versions=("1", "2"),
        limits=ModelLimits(slots=2, max_batch=8, queue=1000, memory_bytes=64_000_000),
        origin="operator",
        crashed_on=(REQUEST,),
    ),
    "model_manifest.v1": ModelManifest(
        name="sentences",
        version="1",
        kind=ModelKind.EMBEDDING,
        parameters=1_000_000,
        context_tokens=512,
        size_bytes=2_000_000,
        embedding=EmbeddingOptions(dimensions=384),
        price_input_microusd_per_1k=50,
        price_output_microusd_per_1k=200,
        sha256={"model.bin": "00"},
    ),
    "model_manifest.translation.v1": ModelManifest(
        name="english-german",
        version="1",
        kind=ModelKind.TRANSLATION,
        parameters=1_000_000,
        context_tokens=512,
        translation=TranslationOptions(target_prefix=(">>deu<<",)),
        price_input_microusd_per_1k=50,
        price_output_microusd_per_1k=200,
    ),
    "worker_models.v1": WorkerModels(
        instance="worker-1",
        memory_budget_bytes=1_000_000_000,
        models=(
            ResidentModel(
                name="penstock-small",
                version="1",
                state=ModelState.READY,
                memory_bytes=2_000_000,
                layout=ModelLayout(
                    compute_type="int8", slots=2, threads=1, max_batch=8, tokens_per_s=900.5
                ),
                running=3,
                waiting=1,
            ),
            ResidentModel(
                name="sentences", version="1", state=ModelState.FAILED, why="model.bin is missing."
            ),
        ),
    ),
    "response.deleted.v1": ResponseDeleted(
        request_id=REQUEST, tenant="acme", key_id="key-1", deleted_at=NOW
    ),
    "error.v1": ErrorReply(error=ERROR),
    "query_usage.v1": QueryUsage(
        tenant="acme",
        start=NOW - timedelta(days=1),
        end=NOW,
        width=BucketWidth.HOUR,
        kinds=(ModelKind.TEXT,),
        group_by=(UsageGroup.MODEL, UsageGroup.KEY),
        models=("penstock-small",),
        key_ids=("key_0123456789abcdef",),
        limit=24,
        page="page_WzE3OTQ5MTMyMDAsbnVsbF0=",
    ),
    "usage_page.v1": UsagePage(
        buckets=(
            UsageBucket(
                start=NOW,
                end=NOW + timedelta(hours=1),
                results=(
                    UsageSums(
                        model="penstock-small",
                        key_id="key_0123456789abcdef",
                        requests=1,
                        input_tokens=12,
                        cached_input_tokens=4,
                        output_tokens=3,
                        tool_calls=0,
                        cost_microusd=1,
                    ),
                ),
            ),
        ),
        next_page="page_WzE3OTQ5MTMyMDAsbnVsbF0=",
    ),
    "usage_report.v1": UsageReport(
        rows=(
            UsageRow(
                tenant="acme",
                model="penstock-small",
                requests=1,
                input_tokens=12,
                output_tokens=3,
                cost_microusd=1,
            ),
        ),
        events_seq=9,
    ),
}


@pytest.mark.parametrize("name", sorted(CONTRACTS))
def test_golden_files_are_read_and_written_unchanged(name: str) -> None:
    """The golden text parses to the example; what it says is written as it stands there."""
    golden = (GOLDEN / f"{name}.json").read_text()
    example = CONTRACTS[name]
    read = type(example).model_validate_json(golden)
    assert read == example
    assert json.loads(read.model_dump_json(exclude_unset=True)) == json.loads(golden)


def test_every_golden_file_is_still_read() -> None:
    """A golden file without a contract would be a contract that was dropped silently."""
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(CONTRACTS)


def test_accounts_of_the_release_before_are_read() -> None:
    """Records without limits by tokens, providers and roles: the buckets are full of them."""
    made = {"name": "x", "created_at": "2026-11-20T12:00:00Z"}
    tenant = TenantRecord.model_validate({"tenant": "acme", "status": "active", **made})
    key = KeyRecord.model_validate({"key_id": "k", "tenant": "acme", "hint": "abcd", **made})
    assert (tenant.tokens_per_minute, tenant.identity_providers) == (None, ())
    assert (key.role, key.expires_at) == (Role.MEMBER, None)


@pytest.mark.parametrize("name", sorted(CONTRACTS))
def test_newer_emitters_do_not_break_older_readers(name: str) -> None:
    """An additional field from a newer emitter is ignored, unless users write the contract."""
    written_by_users = {
        "submission.v1",
        "admission.v1",
        "give_feedback.v1",
        "query_usage.v1",
        "router.show_policy.v1",
        "router.set_policy.v1",
        "router.rollback_policy.v1",
    }
    data = json.loads((GOLDEN / f"{name}.json").read_text()) | {"added_later": 1}
    model = type(CONTRACTS[name])
    if name in written_by_users:
        with pytest.raises(ValueError, match="added_later"):
            model.model_validate(data)
    else:
        assert model.model_validate(data) == CONTRACTS[name]


if __name__ == "__main__":
    for stem, contract in CONTRACTS.items():
        path = GOLDEN / f"{stem}.json"
        if not path.exists():
            path.write_text(json.dumps(json.loads(contract.model_dump_json()), indent=2) + "\n")
