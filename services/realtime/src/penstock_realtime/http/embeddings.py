"""`/v1/embeddings`."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from penstock_realtime.domain.embedding_object import embedding_list
from penstock_realtime.domain.embedding_request import for_models, parse_embedding
from penstock_realtime.domain.generation_request import GenerationRequest
from penstock_realtime.http.generation import Dialect, Generations
from penstock_realtime.ports import ModelCatalogue


@dataclass(frozen=True, slots=True)
class EmbeddingsApi:
    """The Embeddings API's dialect."""

    generations: Generations
    catalogue: ModelCatalogue

    async def create_embeddings(self, request: Request) -> Response:
        """`POST /v1/embeddings`."""
        return await self.generations.create(request, self._dialect())

    def _dialect(self) -> Dialect:
        return Dialect(
            parse=self._parse,
            whole=lambda admitted, final: embedding_list(admitted.given, final),
        )

    def _parse(self, body: bytes) -> GenerationRequest:
        return for_models(parse_embedding(body), self.catalogue.values())
