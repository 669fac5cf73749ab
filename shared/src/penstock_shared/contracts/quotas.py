"""Quotas: the most that a tenant may use in a period, reserved before it is used (I4)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from penstock_shared.contracts.ids import TenantId

MAX_AMOUNT: Final = 10**15


class QuotaUnit(StrEnum):
    """What is counted."""

    REQUESTS = "requests"
    TOKENS = "tokens"  # input and output together, of every attempt
    MICROUSD = "microusd"


class QuotaPeriod(StrEnum):
    """Over which it is counted, in UTC."""

    DAY = "day"
    MONTH = "month"


class Quota(BaseModel):
    """One limit. Settled and reserved use together never exceed it, unless it is soft."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: QuotaUnit
    period: QuotaPeriod
    limit: Annotated[int, Field(ge=0, le=MAX_AMOUNT)]
    soft: bool = False
    """Nothing is refused by it; it is told when it is reached, as of every quota."""

    @model_serializer(mode="wrap")
    def _as_before(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A release that knows of no soft quotas refuses the field, so only they have it."""
        fields: dict[str, Any] = serialize(self)
        if not self.soft:
            fields.pop("soft", None)
        return fields

    def __str__(self) -> str:
        """For people: "1,000,000 tokens per day"."""
        return f"{self.limit:,} {self.unit.value} per {self.period.value}"


class QuotaState(Quota):
    """One limit, and what of it is taken now."""

    tenant: TenantId
    settled: int
    """Used by attempts that have ended."""
    reserved: int
    """The most that open requests may still use."""
    left: int
    """What may still be reserved; 0 also where more was used than there is."""
    resets_at: datetime


class Reserve(BaseModel):
    """The most that one attempt of a request may use."""

    model_config = ConfigDict(frozen=True)

    attempt: Annotated[int, Field(ge=1)]
    tokens: Annotated[int, Field(ge=0, le=MAX_AMOUNT)]
    microusd: Annotated[int, Field(ge=0, le=MAX_AMOUNT)]


def period_start(period: QuotaPeriod, at: datetime) -> datetime:
    """When the period that holds `at` began, in UTC."""
    day = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day if period is QuotaPeriod.DAY else day.replace(day=1)


def period_end(period: QuotaPeriod, at: datetime) -> datetime:
    """When the next period begins."""
    start = period_start(period, at)
    if period is QuotaPeriod.DAY:
        return start + timedelta(days=1)
    return (start + timedelta(days=32)).replace(day=1)
