"""What the API answers about usage and money, as schemas; closed, like `answers.py`."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field

from penstock_realtime.http.documents.answers import Closed
from penstock_shared.contracts.invoices import LineKind, Month
from penstock_shared.contracts.plans import Currency

R = TypeVar("R")
Count = Annotated[int, Field(ge=0)]


class _Groups(Closed):
    project_id: None
    user_id: str | None
    api_key_id: str | None


class CompletionsUsage(_Groups):
    """Text that was generated; what it is not grouped by is null."""

    object: Literal["organization.usage.completions.result"]
    input_tokens: Count
    output_tokens: Count
    input_cached_tokens: Count
    input_audio_tokens: Literal[0]
    output_audio_tokens: Literal[0]
    num_model_requests: Count
    model: str | None
    batch: None
    service_tier: None


class EmbeddingsUsage(_Groups):
    """Texts that were embedded."""

    object: Literal["organization.usage.embeddings.result"]
    input_tokens: Count
    num_model_requests: Count
    model: str | None


class Amount(Closed):
    """Dollars."""

    value: Annotated[float, Field(ge=0)]
    currency: Literal["usd"]


class Costs(_Groups):
    """What usage cost at the prices of its requests; a line item is a model."""

    object: Literal["organization.costs.result"]
    amount: Amount
    line_item: str | None


class Bucket(Closed, Generic[R]):
    """Some time, in Unix seconds; a bucket with many groups goes on in the next page."""

    object: Literal["bucket"]
    start_time: int
    end_time: int
    results: list[R]


class BucketPage(Closed, Generic[R]):
    """Buckets, earliest first."""

    object: Literal["page"]
    data: list[Bucket[R]]
    has_more: bool
    next_page: str | None


class CompletionsPage(BucketPage[CompletionsUsage]):
    """Usage of completions over time."""


class EmbeddingsPage(BucketPage[EmbeddingsUsage]):
    """Usage of embeddings over time."""


class CostsPage(BucketPage[Costs]):
    """Costs over time."""


class Line(Closed):
    """One item of an invoice; amounts are micro-dollars."""

    kind: LineKind
    description: str
    from_day: date
    to_day: date
    model: str | None
    meter: str | None
    quantity: int | None
    unit_microusd: int | None
    amount_microusd: int


class TenantInvoice(Closed):
    """A month: a preview while it has no number."""

    object: Literal["invoice"]
    tenant: str
    month: Month
    currency: Currency
    lines: list[Line]
    usage_microusd: int
    subtotal_microusd: int
    credit_microusd: Count
    due_microusd: Count
    number: str | None
    issued_at: datetime | None


class InvoicePage(Closed):
    """Issued invoices, latest first."""

    object: Literal["list"]
    data: list[TenantInvoice]
    has_more: bool
