"""What the OpenAPI document says of each endpoint, beyond its route."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel

from penstock_realtime.domain.chat_request import CHAT_PARAMETERS, ChatBody
from penstock_realtime.domain.create_request import CREATE_PARAMETERS, CreateBody
from penstock_realtime.domain.embedding_request import EMBEDDING_PARAMETERS, EmbeddingBody
from penstock_realtime.http.documents.answers import (
    ChatCompletion,
    DeletedResponse,
    EmbeddingList,
    Model,
    ModelList,
    Response,
)
from penstock_realtime.http.documents.inputs import (
    ChatParameters,
    EmbeddingInput,
    ResponseInput,
    RetrieveQuery,
)
from penstock_realtime.http.documents.schemas import Body

_UNREADABLE: Final = (400, 413, 422)
_BY_ID: Final = (400, 404, 410)


RESPONSE: Final = Body("CreateResponse", CreateBody, ResponseInput, CREATE_PARAMETERS)
CHAT: Final = Body("CreateChatCompletion", ChatBody, ChatParameters, CHAT_PARAMETERS)
EMBEDDINGS: Final = Body("CreateEmbeddings", EmbeddingBody, EmbeddingInput, EMBEDDING_PARAMETERS)


@dataclass(frozen=True, slots=True)
class Operation:
    """One endpoint."""

    id: str
    summary: str
    answer: type[BaseModel]
    errors: tuple[int, ...] = ()
    """Beside those that every endpoint may answer."""
    body: Body | type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    streams: bool = False
    """It may answer with server-sent events."""


OPERATIONS: Final = {
    "create": Operation(
        "createResponse",
        "Create a response: plain, streamed or in the background",
        Response,
        errors=(*_UNREADABLE, 404, 409, 410),
        body=RESPONSE,
        streams=True,
    ),
    "retrieve": Operation(
        "retrieveResponse",
        "Retrieve a response, or its events after a sequence number",
        Response,
        errors=_BY_ID,
        streams=True,
        query=RetrieveQuery,
    ),
    "delete": Operation("deleteResponse", "Delete a response", DeletedResponse, errors=_BY_ID),
    "cancel": Operation("cancelResponse", "Cancel a response", Response, errors=_BY_ID),
    "create_chat_completion": Operation(
        "createChatCompletion",
        "Create a chat completion: plain or streamed",
        ChatCompletion,
        errors=(*_UNREADABLE, 404, 409, 410),
        body=CHAT,
        streams=True,
    ),
    "create_embeddings": Operation(
        "createEmbeddings",
        "Embed texts",
        EmbeddingList,
        errors=(*_UNREADABLE, 404, 409, 410),
        body=EMBEDDINGS,
    ),
    "list_models": Operation("listModels", "List the models", ModelList),
    "retrieve_model": Operation("retrieveModel", "Retrieve a model", Model, errors=(404,)),
}
"""By the name of the function that serves the route."""
