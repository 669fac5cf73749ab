"""Questions about usage over time: sums in buckets of a minute, an hour or a day, in UTC.

The shape is that of OpenAI's organization usage API, which realtime serves from it:
https://developers.openai.com/api/reference/resources/organization
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from penstock_shared.contracts.ids import DataSubject, KeyId, ModelName, TenantId
from penstock_shared.contracts.models import ModelKind

MAX_BUCKETS: Final = 1_440
MAX_ROWS: Final = 1_000
"""Of one page, in all its buckets: an answer is one message."""
EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)


class BucketWidth(StrEnum):
    """How much time one bucket holds."""

    MINUTE = "1m"
    HOUR = "1h"
    DAY = "1d"

    @property
    def span(self) -> timedelta:
        """As time."""
        return _SPANS[self]


_SPANS: Final = {
    BucketWidth.MINUTE: timedelta(minutes=1),
    BucketWidth.HOUR: timedelta(hours=1),
    BucketWidth.DAY: timedelta(days=1),
}


class UsageGroup(StrEnum):
    """What sums can be told apart by."""

    TENANT = "tenant"
    MODEL = "model"
    KEY = "api_key_id"
    USER = "user_id"


def _in_reach(value: datetime) -> datetime:
    if not EARLIEST <= value <= LATEST:
        msg = f"a time between the years {EARLIEST.year} and {LATEST.year}"
        raise ValueError(msg)
    return value.astimezone(UTC)


Moment = Annotated[AwareDatetime, AfterValidator(_in_reach)]
_Few = Field(max_length=100)


class QueryUsage(BaseModel):
    """What was used, by the time at which requests were accepted.

    Buckets begin at whole minutes, hours or days, the first of them at or before `start`; the
    last one begins before `end`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: TenantId | None = None
    """None: all tenants, for operators."""
    start: Moment
    end: Moment | None = None
    """None: now."""
    width: BucketWidth = BucketWidth.DAY
    kinds: tuple[ModelKind, ...] = tuple(ModelKind)
    group_by: Annotated[tuple[UsageGroup, ...], Field(max_length=4)] = ()
    models: Annotated[tuple[ModelName, ...], _Few] | None = None
    """Only these; None: all."""
    key_ids: Annotated[tuple[KeyId, ...], _Few] | None = None
    users: Annotated[tuple[DataSubject, ...], _Few] | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_BUCKETS)] = 7
    """Buckets of a page, at most; it has fewer where they hold much."""
    page: Annotated[str, Field(max_length=2_000)] | None = None
    """`next_page` of the page before; everything else must be as it was then."""

    @property
    def by_user(self) -> bool:
        """Whether users are told apart."""
        return self.users is not None or UsageGroup.USER in self.group_by

    @model_validator(mode="after")
    def _can_be_told(self) -> Self:
        if self.by_user and self.width is not BucketWidth.DAY:
            msg = "users are told apart by the day: take buckets of 1d"
            raise ValueError(msg)
        if self.end is not None and self.end <= self.start:
            msg = "the end comes after the start"
            raise ValueError(msg)
        return self


class UsageSums(BaseModel):
    """What one group used in one bucket; what it is not grouped by is None."""

    model_config = ConfigDict(frozen=True)

    tenant: str | None = None
    model: str | None = None
    key_id: str | None = None
    user: str | None = None
    requests: int
    """First attempts that used anything: what follows a failed check is no request of its own."""
    input_tokens: int
    """Cached ones included."""
    cached_input_tokens: int
    output_tokens: int
    tool_calls: int
    cost_microusd: int


class UsageBucket(BaseModel):
    """A bucket of time, from `start` on and before `end`; empty where nothing was used."""

    model_config = ConfigDict(frozen=True)

    start: datetime
    end: datetime
    results: tuple[UsageSums, ...] = ()


class UsagePage(BaseModel):
    """Buckets, earliest first.

    A bucket with more groups than a page holds goes on in the next page, with the same times.
    """

    model_config = ConfigDict(frozen=True)

    buckets: tuple[UsageBucket, ...]
    next_page: str | None = None
    """None: these were the last."""
