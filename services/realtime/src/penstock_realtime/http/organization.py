"""`/v1/organization/…`: what the caller's tenant used, and what it cost, over time."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from penstock_realtime.domain.rendering import compact
from penstock_realtime.domain.usage_object import (
    Result,
    completions_result,
    costs_result,
    embeddings_result,
    page_object,
)
from penstock_realtime.domain.usage_request import (
    COMPLETIONS,
    EMBEDDINGS,
    CostsQuery,
    UsageQuery,
)
from penstock_realtime.ports import BillingDesk
from penstock_realtime.serving.authentication import Authentication
from penstock_shared.contracts.models import ModelKind
from penstock_shared.contracts.usage_queries import QueryUsage, UsagePage
from penstock_shared.runtime.access import Permission


@dataclass(frozen=True, slots=True)
class OrganizationApi:
    """The endpoints of one resource. The caller's tenant is in every question (I8)."""

    authentication: Authentication
    desk: BillingDesk

    async def usage_completions(self, request: Request) -> Response:
        """`GET /v1/organization/usage/completions`."""
        return await self._usage(request, COMPLETIONS, completions_result)

    async def usage_embeddings(self, request: Request) -> Response:
        """`GET /v1/organization/usage/embeddings`."""
        return await self._usage(request, EMBEDDINGS, embeddings_result)

    async def costs(self, request: Request) -> Response:
        """`GET /v1/organization/costs`."""
        tenant = await self._tenant(request)
        query = CostsQuery.parse(request.query_params.multi_items())
        return await self._answer(query.question(tenant), costs_result)

    async def _usage(
        self, request: Request, kinds: tuple[ModelKind, ...], result: Result
    ) -> Response:
        tenant = await self._tenant(request)
        query = UsageQuery.parse(request.query_params.multi_items())
        return await self._answer(query.question(tenant, kinds), result)

    async def _answer(self, question: QueryUsage, result: Result) -> Response:
        page = await self.desk.ask("query-usage", question, UsagePage)
        return Response(compact(page_object(page, result)), media_type="application/json")

    async def _tenant(self, request: Request) -> str:
        authorization = request.headers.get("authorization")
        identity = await self.authentication.caller(authorization, Permission.BILLING)
        return identity.tenant.tenant
