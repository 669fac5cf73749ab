"""Tokens used and what they cost. Money is an integer number of micro-dollars."""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=0, le=2**53)]


class Usage(BaseModel):
    """Tokens of one attempt: counted by the engine, never estimated (I3)."""

    model_config = ConfigDict(frozen=True)

    input_tokens: Count
    cached_input_tokens: Count = 0
    """How many of the input tokens an engine had already computed."""
    output_tokens: Count
    tool_calls: Count = 0
    """Calls that the platform itself made for the request, not those that it proposed."""

    @model_validator(mode="after")
    def _cached_is_input(self) -> Self:
        if self.cached_input_tokens > self.input_tokens:
            msg = "more input tokens cached than there are"
            raise ValueError(msg)
        return self

    def __add__(self, other: Usage) -> Usage:
        """Both together."""
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cached_input_tokens=self.cached_input_tokens + other.cached_input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            tool_calls=self.tool_calls + other.tool_calls,
        )


NOTHING_USED: Final = Usage(input_tokens=0, output_tokens=0)


class Price(BaseModel):
    """A model's price, fixed for a request when it is routed."""

    model_config = ConfigDict(frozen=True)

    input_microusd_per_1k: Count
    cached_input_microusd_per_1k: Count | None = None
    """None: as other input."""
    output_microusd_per_1k: Count
    request_microusd: Count = 0
    """Of a request that used anything, whatever it used; of its first attempt only."""
    tool_call_microusd: Count = 0

    def of_a_retry(self) -> Price:
        """For the attempts after the first: that it failed its check was not the client's wish."""
        return self.model_copy(update={"request_microusd": 0}) if self.request_microusd else self


def cost_microusd(usage: Usage, price: Price) -> int:
    """What `usage` costs, rounded half up to a whole micro-dollar."""
    cached = price.cached_input_microusd_per_1k
    if cached is None:
        cached = price.input_microusd_per_1k
    thousandths = (
        (usage.input_tokens - usage.cached_input_tokens) * price.input_microusd_per_1k
        + usage.cached_input_tokens * cached
        + usage.output_tokens * price.output_microusd_per_1k
    )
    fees = usage.tool_calls * price.tool_call_microusd
    if usage.input_tokens or usage.output_tokens or usage.tool_calls:
        fees += price.request_microusd
    return fees + (thousandths + 500) // 1000


class UsageQuery(BaseModel):
    """Operator's question: what did a tenant use? All tenants when None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: str | None = None


class UsageRow(BaseModel):
    """Settled usage of one tenant and model."""

    model_config = ConfigDict(frozen=True)

    tenant: str
    model: str
    requests: int
    input_tokens: int
    output_tokens: int
    cost_microusd: int


class UsageReport(BaseModel):
    """Billing's answer; `events_seq` is how far into EVENTS it has read."""

    model_config = ConfigDict(frozen=True)

    rows: tuple[UsageRow, ...]
    events_seq: int
