"""`/v1/responses/{id}/feedback`: how good an answer was. The vendor's API has nothing like it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from penstock_realtime.domain.chat_object import COMPLETION_PREFIX
from penstock_realtime.domain.parameters import invalid, parse_object
from penstock_realtime.domain.rendering import compact
from penstock_realtime.domain.response_object import response_id
from penstock_realtime.http.body import read_body
from penstock_realtime.http.errors import error_response
from penstock_realtime.http.generation import limit_headers
from penstock_realtime.serving.admission import Admissions
from penstock_realtime.serving.authentication import Authentication
from penstock_realtime.serving.feedback import Feedbacks
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.contracts.feedback import ResponseFeedback, Score
from penstock_shared.contracts.ids import parse_request_id
from penstock_shared.runtime.access import Identity, Permission

_MAX_BODY_BYTES: Final = 1024


class FeedbackBody(BaseModel):
    """A judgement."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    score: Score


@dataclass(frozen=True, slots=True)
class FeedbackApi:
    """One endpoint; it counts as a request, without tokens."""

    authentication: Authentication
    admissions: Admissions
    feedbacks: Feedbacks

    async def give_feedback(self, request: Request) -> Response:
        """`POST /v1/responses/{id}/feedback`, also by the id of a chat completion."""
        identity = await self.authentication.caller(
            request.headers.get("authorization"), Permission.WRITE
        )
        raw = await read_body(request, _MAX_BODY_BYTES)
        state = request.scope["state"]
        call = self.admissions.identify(identity, state["request_id"], address=state.get("address"))
        allowance = await self.admissions.limit(call, None)
        headers = limit_headers(allowance)
        try:
            allowance.require()
            given = await self._give(identity, request.path_params["answer_id"], raw)
        except PenstockError as error:
            return error_response(error, headers)
        body = {
            "object": "response.feedback",
            "response_id": response_id(given.request_id),
            "score": given.score,
            "created_at": int(given.given_at.timestamp()),
        }
        return Response(compact(body), headers=headers, media_type="application/json")

    async def _give(self, identity: Identity, answer_id: str, raw: bytes) -> ResponseFeedback:
        try:
            body = FeedbackBody.model_validate(parse_object(raw))
        except ValidationError as error:
            raise invalid(error) from error
        request_id = parse_request_id(answer_id.removeprefix(COMPLETION_PREFIX))
        return await self.feedbacks.give(
            identity.tenant.tenant, request_id, identity.key_id, body.score
        )
