"""What a provider has to know of us before it can count usage: our tenants, a meter, a price."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class MirroredTenant:
    """A tenant, and what the provider has of it."""

    tenant: str
    name: str
    customer: str | None = None
    told_name: str | None = None
    subscription: str | None = None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The meter, and the price of one of its units: one cent."""

    meter: str
    price: str


@dataclass(frozen=True, slots=True)
class EmptyMonth:
    """A month of which nothing is to be collected."""

    tenant: str
    customer: str
    period: date
    number: str
    """The invoice's."""


class CustomerClaim(Protocol):
    """A tenant's customer in hand: nobody else makes or changes it."""

    @property
    def customer(self) -> str | None:
        """The provider's id, as far as it is known."""
        ...

    @property
    def begun_at(self) -> datetime:
        """Nobody has tried to make it before then: committed when the block begins."""
        ...

    async def keep(self, customer: str, name: str) -> None:
        """The provider has this customer, under this name."""
        ...


class MirrorBook(Protocol):
    """What we know that the provider has. Every method may raise UnavailableError."""

    async def tenants(self) -> list[MirroredTenant]:
        """All that pay through this provider, or may."""
        ...

    def claim(self, tenant: str, at: datetime) -> AbstractAsyncContextManager[CustomerClaim]:
        """Hold a tenant's customer until the block ends. Raises NotFoundError: no such tenant."""
        ...

    async def keep_subscription(self, tenant: str, subscription: str, at: datetime) -> None:
        """The customer's usage is on this subscription from then on."""
        ...

    async def empty_months(self) -> list[EmptyMonth]:
        """Those that the provider has not closed yet, as far as is known."""
        ...

    async def keep_empty(self, month: EmptyMonth) -> None:
        """The provider has closed it."""
        ...

    async def catalogue(self) -> Catalogue | None:
        """What was found or made of it."""
        ...

    async def keep_catalogue(self, catalogue: Catalogue) -> None:
        """The provider has these."""
        ...


class Mirror(Protocol):
    """The provider's side. Everything may be repeated; it may raise what PaymentGateway may."""

    async def find_catalogue(self) -> Catalogue:
        """The meter and the price, made where they are missing."""
        ...

    async def confirm(self, catalogue: Catalogue) -> None:
        """Make sure that it is this account's. Raises PermanentError: it is not."""
        ...

    async def put_customer(self, tenant: str, name: str) -> str:
        """The tenant's customer, made if there is none (any more), under this name."""
        ...

    async def find_subscription(self, customer: str, price: str) -> tuple[str, datetime]:
        """The customer's subscription to the price, made where it is missing; and since when."""
        ...


class EmptyMonths(Protocol):
    """Closes what the provider has of months of which nothing is collected."""

    async def close_empty(self, month: EmptyMonth) -> None:
        """After this the provider asks for nothing. Raises as PaymentGateway does."""
        ...
