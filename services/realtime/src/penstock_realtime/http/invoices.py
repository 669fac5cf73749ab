"""`/v1/billing/…`: what the caller's tenant owes. Amounts are micro-dollars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from penstock_realtime.domain.parameters import invalid
from penstock_realtime.domain.rendering import compact
from penstock_realtime.ports import BillingDesk
from penstock_realtime.serving.authentication import Authentication
from penstock_shared.contracts.invoice_commands import (
    MAX_INVOICES,
    InvoiceList,
    ListInvoices,
    PreviewInvoice,
)
from penstock_shared.contracts.invoices import Invoice, Month
from penstock_shared.runtime.access import Permission

M = TypeVar("M", bound=BaseModel)
_PLATFORMS_OWN: Final = {"events_seq"}
"""How much all tenants together have done is nobody's business (I8)."""


class PreviewQuery(BaseModel):
    """Which month; the present one where none is named."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    month: Month | None = None


class InvoicesQuery(BaseModel):
    """Which page of the invoices."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    before: Month | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_INVOICES)] = 12


@dataclass(frozen=True, slots=True)
class InvoicesApi:
    """The endpoints of one resource. The caller's tenant is in every question (I8)."""

    authentication: Authentication
    desk: BillingDesk

    async def preview_invoice(self, request: Request) -> Response:
        """`GET /v1/billing/invoice/preview`: the invoice, if the month ended now."""
        tenant = await self._tenant(request)
        query = _parse(PreviewQuery, request)
        question = PreviewInvoice(tenant=tenant, month=query.month)
        return _json(_invoice(await self.desk.ask("preview-invoice", question, Invoice)))

    async def list_invoices(self, request: Request) -> Response:
        """`GET /v1/billing/invoices`: the issued ones, latest first."""
        tenant = await self._tenant(request)
        query = _parse(InvoicesQuery, request)
        question = ListInvoices(tenant=tenant, before=query.before, limit=query.limit + 1)
        found = (await self.desk.ask("list-invoices", question, InvoiceList)).invoices
        data = [_invoice(invoice) for invoice in found[: query.limit]]
        return _json({"object": "list", "data": data, "has_more": len(found) > query.limit})

    async def _tenant(self, request: Request) -> str:
        authorization = request.headers.get("authorization")
        identity = await self.authentication.caller(authorization, Permission.BILLING)
        return identity.tenant.tenant


def _parse(model: type[M], request: Request) -> M:
    try:
        return model.model_validate(dict(request.query_params))
    except ValidationError as error:
        raise invalid(error) from error


def _invoice(invoice: Invoice) -> dict[str, Any]:
    return {"object": "invoice", **invoice.model_dump(mode="json", exclude=_PLATFORMS_OWN)}


def _json(body: dict[str, Any]) -> Response:
    return Response(compact(body), media_type="application/json")
