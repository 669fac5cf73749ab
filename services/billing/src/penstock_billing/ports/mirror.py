"""What a provider has to know of us before it can count usage: our tenants, a meter, a price."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
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


class MirrorBook(Protocol):
    """What we know that the provider has. Every method may raise UnavailableError."""

    async def tenants(self) -> list[MirroredTenant]:
        """All that pay through this provider, or may."""
        ...

    async def customer(self, tenant: str) -> str | None:
        """The provider's customer of a tenant."""
        ...

    async def begin_customer(self, tenant: str, at: datetime) -> datetime:
        """A customer is about to be made; when that was first so, or was last begun anew."""
        ...

    async def begin_customer_anew(self, tenant: str, at: datetime) -> None:
        """The provider surely made none till now."""
        ...

    async def keep_customer(self, tenant: str, customer: str, name: str) -> None:
        """The provider has this customer, under this name."""
        ...

    async def keep_subscription(self, tenant: str, subscription: str, at: datetime) -> None:
        """The customer's usage is on this subscription from then on."""
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

    async def rename_customer(self, customer: str, name: str) -> None:
        """Tell a tenant's new name."""
        ...

    async def find_subscription(self, customer: str, price: str) -> tuple[str, datetime]:
        """The customer's subscription to the price, made where it is missing; and since when."""
        ...
