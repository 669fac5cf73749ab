"""`/v1/chat/completions`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from penstock_realtime.domain.chat_object import completion
from penstock_realtime.domain.chat_rendering import ChatStream
from penstock_realtime.domain.chat_request import parse_chat
from penstock_realtime.http.generation import Dialect, Generations

CHAT: Final = Dialect(
    parse=parse_chat,
    render=lambda admitted: ChatStream(admitted.head, include_usage=admitted.given.include_usage),
    whole=lambda admitted, final: completion(admitted.head, final),
)


@dataclass(frozen=True, slots=True)
class ChatApi:
    """The Chat Completions API's dialect."""

    generations: Generations

    async def create_chat_completion(self, request: Request) -> Response:
        """`POST /v1/chat/completions`."""
        return await self.generations.create(request, CHAT)
