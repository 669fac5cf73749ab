"""Tokens used and what they cost. Money is an integer number of micro-dollars."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0, le=2**53)]


class Usage(BaseModel):
    """Tokens of one attempt: counted by the engine, never estimated (I3)."""

    model_config = ConfigDict(frozen=True)

    input_tokens: Count
    output_tokens: Count

    def __add__(self, other: Usage) -> Usage:
        """Both together."""
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
        )


NOTHING_USED: Final = Usage(input_tokens=0, output_tokens=0)


class Price(BaseModel):
    """A model's price, fixed for a request when it is routed."""

    model_config = ConfigDict(frozen=True)

    input_microusd_per_1k: Count
    output_microusd_per_1k: Count


def cost_microusd(usage: Usage, price: Price) -> int:
    """What `usage` costs, rounded half up to a whole micro-dollar."""
    thousandths = (
        usage.input_tokens * price.input_microusd_per_1k
        + usage.output_tokens * price.output_microusd_per_1k
    )
    return (thousandths + 500) // 1000


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
