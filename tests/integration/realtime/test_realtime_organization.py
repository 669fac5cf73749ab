"""Usage and costs in the OpenAI API's shape, read with the official SDK; billing is real.

Also the invoice's preview, which is the platform's own. A tenant's admins alone may ask, and see
their own tenant (I8).
"""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import pytest
from openai import AsyncOpenAI
from openai.types.admin.organization.usage_completions_response import (
    DataResultOrganizationUsageCompletionsResult,
)
from openai.types.admin.organization.usage_costs_response import DataResultOrganizationCostsResult
from openai.types.admin.organization.usage_embeddings_response import (
    DataResultOrganizationUsageEmbeddingsResult,
)
from pydantic import BaseModel
from tests.support.billing import terminal
from tests.support.office import Office

from penstock_realtime.http.documents import billing_answers
from penstock_shared.contracts.accounts import Role
from penstock_shared.contracts.invoice_commands import MAX_INVOICES
from penstock_shared.contracts.models import ModelKind
from penstock_shared.contracts.requests import RequestEnded
from penstock_shared.contracts.usage import Usage, cost_microusd

DAY: Final = 86_400
FIRST: Final = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(
    days=4
)
START: Final = int(FIRST.timestamp())
COMPLETIONS: Final = "organization/usage/completions"
PATHS: Final = (
    f"{COMPLETIONS}?start_time=0",
    "organization/usage/embeddings?start_time=0",
    "organization/costs?start_time=0",
    "billing/invoice/preview",
    "billing/invoices",
)
WAYS: Final[tuple[tuple[str, int, list[str]], ...]] = (
    ("1d", DAY, ["model"]),
    ("1d", DAY, ["model", "api_key_id"]),
    ("1d", DAY, ["user_id", "api_key_id"]),
    ("1h", 3600, ["model"]),
    ("1m", 60, ["model", "api_key_id"]),
    ("1d", DAY, []),
)
WRONG: Final = (
    ("", "missing_required_parameter", "start_time"),
    ("start_time=yesterday", "invalid_value", "start_time"),
    ("start_time=-1", "invalid_value", "start_time"),
    ("start_time=99999999999999999999", "invalid_value", "start_time"),
    ("start_time=0&start_time=1", "invalid_value", "start_time"),
    ("start_time=9&end_time=9", "invalid_value", "end_time"),
    ("start_time=0&bucket_width=1w", "invalid_value", "bucket_width"),
    ("start_time=0&limit=0", "invalid_value", "limit"),
    ("start_time=0&limit=32", "invalid_value", "limit"),
    ("start_time=0&bucket_width=1h&limit=169", "invalid_value", "limit"),
    ("start_time=0&group_by=project_id", "invalid_value", "group_by.0"),
    ("start_time=0&bucket_width=1h&group_by=user_id", "invalid_value", "bucket_width"),
    ("start_time=0&project_ids=p", "unsupported_parameter", "project_ids"),
    ("start_time=0&batch=true", "unsupported_parameter", "batch"),
    ("start_time=0&tenant=globex", "unknown_parameter", "tenant"),
    ("start_time=0&page=next", "invalid_page", "page"),
    ("start_time=0&page=page_WzAsWyIxIiwiIiwiIl1d", "invalid_page", "page"),
    ("start_time=0&models=%00", "invalid_value", "models.0"),
)


def facts(seed: int, tenant: str, count: int = 60) -> list[RequestEnded]:
    """Requests of some days, models, keys and users, replayable from the seed."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        embeds = rng.random() < 0.3
        tokens = rng.randrange(1, 500)
        made.append(
            terminal(
                tenant=tenant,
                request_id=str(uuid.UUID(int=rng.getrandbits(128), version=4)),
                model=rng.choice(("minilm",) if embeds else ("small", "large")),
                kind=ModelKind.EMBEDDING if embeds else ModelKind.TEXT,
                key_id=rng.choice(("key_1", "key_2")),
                data_subject=rng.choice(("ann", "bob", "a weird; name'")),
                usage=Usage(
                    input_tokens=tokens,
                    cached_input_tokens=rng.randrange(tokens),
                    output_tokens=0 if embeds else rng.randrange(300),
                ),
                routed_at=FIRST + timedelta(seconds=rng.randrange(3 * DAY)),
            )
        )
    return made


@pytest.fixture
async def used(office: Office) -> list[RequestEnded]:
    """What the office's tenant used; another tenant has used as much."""
    mine = facts(7, office.tenant)
    for fact in (*mine, *facts(8, f"{office.tenant}x")):
        await office.operator.publish(fact)
    await office.operator.caught_up()
    return mine


def sdk(office: Office, role: Role = Role.ADMIN) -> Any:
    return AsyncOpenAI(
        base_url=office.edge.base_url,
        api_key="unused",
        admin_api_key=office.secrets[role],
        max_retries=0,
    ).admin.organization.usage


def expected(
    used: list[RequestEnded], group: Callable[[RequestEnded], tuple[Any, ...]], width_s: int = DAY
) -> dict[tuple[Any, ...], tuple[int, ...]]:
    """(bucket, *group) → requests, input, cached and output tokens, micro-dollars."""
    sums: dict[tuple[Any, ...], Counter[int]] = {}
    for fact in used:
        at = int(fact.routed_at.timestamp())
        usage = fact.usage
        values = (
            1,
            usage.input_tokens,
            usage.cached_input_tokens,
            usage.output_tokens,
            cost_microusd(usage, fact.price),
        )
        place = sums.setdefault((at - at % width_s, *group(fact)), Counter())
        for index, value in enumerate(values):
            place[index] += value
    return {key: tuple(place[index] for index in range(5)) for key, place in sums.items()}


async def every_page(ask: Any, **query: Any) -> list[Any]:
    """All buckets, page after page, as the SDK read them."""
    buckets: list[Any] = []
    page = await ask(**query)
    while True:
        assert page.object == "page"
        buckets += page.data
        assert page.has_more == (page.next_page is not None)
        if page.next_page is None:
            return buckets
        page = await ask(**query, page=page.next_page)


async def test_completions_by_the_official_sdk(office: Office, used: list[RequestEnded]) -> None:
    """Every width and grouping gives the sums of the facts: this tenant's and no other's (I8)."""
    for width, width_s, group_by in WAYS:
        await completions_are_right(office, used, width, width_s, group_by)


async def completions_are_right(
    office: Office, used: list[RequestEnded], width: str, width_s: int, group_by: list[str]
) -> None:
    names = {"model": "model", "api_key_id": "key_id", "user_id": "data_subject"}
    texts = [fact for fact in used if fact.kind is ModelKind.TEXT]
    buckets = await every_page(
        sdk(office).completions, start_time=START, bucket_width=width, group_by=group_by
    )
    found = {}
    for bucket in buckets:
        assert bucket.end_time - bucket.start_time == width_s
        for result in bucket.results:
            assert isinstance(result, DataResultOrganizationUsageCompletionsResult)
            place = (bucket.start_time, *(getattr(result, name) for name in group_by))
            assert place not in found
            found[place] = (
                result.num_model_requests,
                result.input_tokens,
                result.input_cached_tokens,
                result.output_tokens,
            )
            assert [getattr(result, name) for name in names if name not in group_by] == [None] * (
                3 - len(group_by)
            )
    wanted = expected(
        texts, lambda fact: tuple(getattr(fact, names[name]) for name in group_by), width_s
    )
    assert found == {place: sums[:4] for place, sums in wanted.items()}
    starts = [bucket.start_time for bucket in buckets]
    assert starts == list(range(START, starts[-1] + 1, width_s))  # empty ones included
    assert starts[-1] + width_s > datetime.now(UTC).timestamp() - 120


async def test_embeddings_and_costs(office: Office, used: list[RequestEnded]) -> None:
    """Embeddings are counted apart; costs hold both, by model and by key."""
    end = START + 3 * DAY
    embedded = await every_page(
        sdk(office).embeddings, start_time=START, end_time=end, group_by=["model"], limit=2
    )
    vectors = [fact for fact in used if fact.kind is ModelKind.EMBEDDING]
    results = [(b.start_time, one) for b in embedded for one in b.results]
    assert all(isinstance(one, DataResultOrganizationUsageEmbeddingsResult) for _, one in results)
    assert {(at, one.model): one.input_tokens for at, one in results} == {
        place: sums[1] for place, sums in expected(vectors, lambda f: (f.model,)).items()
    }
    assert len(embedded) == 3
    costs = await every_page(
        sdk(office).costs, start_time=START, end_time=end, group_by=["line_item", "api_key_id"]
    )
    results = [(b.start_time, one) for b in costs for one in b.results]
    assert all(isinstance(one, DataResultOrganizationCostsResult) for _, one in results)
    assert {one.amount.currency for _, one in results} == {"usd"}
    assert {
        (at, one.line_item, one.api_key_id): round(one.amount.value * 1e6) for at, one in results
    } == {place: sums[4] for place, sums in expected(used, lambda f: (f.model, f.key_id)).items()}


async def test_filters(office: Office, used: list[RequestEnded]) -> None:
    """Models, keys and users; what is not this tenant's is simply not there."""
    page = await sdk(office).completions(
        start_time=START,
        models=["small"],
        api_key_ids=["key_1"],
        user_ids=["bob", "a weird; name'"],
    )
    wanted = [
        fact
        for fact in used
        if (fact.model, fact.key_id) == ("small", "key_1") and fact.data_subject != "ann"
    ]
    found = {b.start_time: one.num_model_requests for b in page.data for one in b.results}
    assert found == {place[0]: sums[0] for place, sums in expected(wanted, lambda _: ()).items()}
    none = await sdk(office).completions(start_time=START, user_ids=["nobody\0"])
    assert [bucket.results for bucket in none.data] == [[]] * len(none.data)


async def test_only_admins_ask(office: Office) -> None:
    """Whatever the question: 403 and the reason; without a key 401."""
    for path in PATHS:
        for role in (Role.MEMBER, Role.READ_ONLY):
            async with office.http(role) as client:
                answer = await client.get(path)
                told = answer.status_code, answer.json()["error"]["code"]
                assert told == (403, "insufficient_permissions"), (role, path)
        async with office.http() as admin:
            assert (await admin.get(path)).status_code == 200, path
        async with httpx.AsyncClient() as nobody:
            assert (await nobody.get(f"{office.edge.base_url}/{path}")).status_code == 401


async def test_questions_that_are_wrong(office: Office) -> None:
    """400 that names the parameter; a tenant cannot be named at all (I8)."""
    async with office.http() as admin:
        for query, code, param in WRONG:
            answer = await admin.get(f"{COMPLETIONS}?{query}")
            error = answer.json()["error"]
            told = answer.status_code, error["code"], error["param"]
            assert told == (400, code, param), query


async def test_a_page_of_another_tenant_shows_nothing_of_it(
    office: Office, used: list[RequestEnded]
) -> None:
    """A cursor is a place in time: whoever has it sees its own rows (I8)."""
    other = Office(office.edge, office.operator, f"{office.tenant}y")
    await other.hire()
    first = await sdk(office).completions(start_time=START, limit=1, group_by=["model"])
    page = await sdk(other).completions(
        start_time=START, limit=7, group_by=["model"], page=first.next_page
    )
    assert used
    assert [bucket.results for bucket in page.data] == [[]] * 4


async def test_the_invoice_that_is_coming(office: Office, used: list[RequestEnded]) -> None:
    """The preview has this month's usage to the micro-dollar; nothing was issued yet."""
    month = datetime.now(UTC).strftime("%Y-%m")
    later = (datetime.now(UTC) + timedelta(days=40)).strftime("%Y-%m")
    async with office.http() as admin:
        preview = await admin.get("billing/invoice/preview", params={"month": month})
        assert preview.status_code == 200
        shown = conforming(billing_answers.TenantInvoice, preview)
        this_month = [f for f in used if f.routed_at.strftime("%Y-%m") == month]
        assert shown["usage_microusd"] == sum(cost_microusd(f.usage, f.price) for f in this_month)
        assert (shown["tenant"], shown["number"]) == (office.tenant, None)
        assert "events_seq" not in shown
        assert conforming(billing_answers.InvoicePage, await admin.get("billing/invoices")) == {
            "object": "list",
            "data": [],
            "has_more": False,
        }
        longest = await admin.get("billing/invoices", params={"limit": MAX_INVOICES})
        assert longest.status_code == 200
        for path in (
            "invoice/preview?month=2026-13",
            "invoice/preview?tenant=x",
            "invoices?limit=0",
            f"invoices?limit={MAX_INVOICES + 1}",
        ):
            assert (await admin.get(f"billing/{path}")).status_code == 400
        assert (
            await admin.get("billing/invoice/preview", params={"month": later})
        ).status_code == 409


async def test_answers_are_as_described(office: Office, used: list[RequestEnded]) -> None:
    """Each field of the OpenAPI document is there, and no other; the parameters are in it."""
    assert used
    pages: dict[str, type[BaseModel]] = {
        COMPLETIONS: billing_answers.CompletionsPage,
        "organization/usage/embeddings": billing_answers.EmbeddingsPage,
        "organization/costs": billing_answers.CostsPage,
    }
    async with office.http() as admin:
        for path, schema in pages.items():
            answer = await admin.get(f"{path}?start_time={START}&group_by=api_key_id")
            assert any(bucket["results"] for bucket in conforming(schema, answer)["data"])
        document = (await admin.get(f"{office.edge.base_url[:-3]}/openapi.json")).json()
        operation = document["paths"][f"/v1/{COMPLETIONS}"]["get"]
        needed = {one["name"]: one["required"] for one in operation["parameters"]}
        assert needed["start_time"]
        assert not needed["group_by"]


async def test_billing_is_away_and_says_so(office: Office, billing: AsyncExitStack) -> None:
    """503 with the time to come back, and no half-truth."""
    await billing.aclose()
    async with office.http() as admin:
        answer = await admin.get(f"{COMPLETIONS}?start_time=0")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "billing_unavailable")
        assert "retry-after" in answer.headers


def conforming(schema: type[BaseModel], answer: httpx.Response) -> Any:
    """The answer's JSON, once it is just as the schema says."""
    body = answer.json()
    assert schema.model_validate_json(answer.content).model_dump(mode="json") == body
    return body
