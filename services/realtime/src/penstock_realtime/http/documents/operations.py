"""What the OpenAPI document says of each endpoint, beyond its route."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel

from penstock_realtime.domain.chat_request import CHAT_PARAMETERS, ChatBody
from penstock_realtime.domain.create_request import CREATE_PARAMETERS, CreateBody
from penstock_realtime.domain.embedding_request import EMBEDDING_PARAMETERS, EmbeddingBody
from penstock_realtime.domain.usage_request import CostsQuery, UsageQuery
from penstock_realtime.http.documents.answers import (
    DeletedKey,
    DeletedResponse,
    EmbeddingList,
    Feedback,
    InputItemList,
    KeyPage,
    Model,
    ModelList,
    NewKey,
    Response,
)
from penstock_realtime.http.documents.billing_answers import (
    CompletionsPage,
    CostsPage,
    EmbeddingsPage,
    InvoicePage,
    TenantInvoice,
)
from penstock_realtime.http.documents.chat_answers import ChatCompletion, ChatCompletionChunk
from penstock_realtime.http.documents.chat_inputs import ChatParameters
from penstock_realtime.http.documents.events import RESPONSE_EVENTS, StreamError
from penstock_realtime.http.documents.inputs import (
    EmbeddingInput,
    ResponseInput,
    RetrieveQuery,
)
from penstock_realtime.http.documents.schemas import Body
from penstock_realtime.http.feedback import FeedbackBody
from penstock_realtime.http.invoices import InvoicesQuery, PreviewQuery
from penstock_realtime.http.keys import CreateKeyBody, KeysQuery, RotateKeyBody
from penstock_realtime.http.retrieval import ItemsQuery
from penstock_shared.contracts.errors import ErrorReply

_UNREADABLE: Final = (400, 413, 422)
_BY_ID: Final = (400, 404, 410)
_EVENTS: Final = (*RESPONSE_EVENTS, StreamError)


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
    limited: bool = False
    """It counts against the limits, and tells how they stand."""
    streams: tuple[type[BaseModel], ...] = ()
    """The server-sent events that it may answer with."""
    done: str | None = None
    """The data of an event that is no JSON: the last one."""


OPERATIONS: Final = {
    "create": Operation(
        "createResponse",
        "Create a response: plain, streamed or in the background",
        Response,
        errors=(*_UNREADABLE, 404, 409, 410),
        body=RESPONSE,
        limited=True,
        streams=_EVENTS,
    ),
    "retrieve": Operation(
        "retrieveResponse",
        "Retrieve a response, or its events after a sequence number",
        Response,
        errors=_BY_ID,
        streams=_EVENTS,
        query=RetrieveQuery,
    ),
    "delete": Operation("deleteResponse", "Delete a response", DeletedResponse, errors=_BY_ID),
    "list_input_items": Operation(
        "listInputItems",
        "List what a response was asked",
        InputItemList,
        errors=_BY_ID,
        query=ItemsQuery,
    ),
    "cancel": Operation("cancelResponse", "Cancel a response", Response, errors=_BY_ID),
    "give_feedback": Operation(
        "giveFeedback",
        "Say how good an answer was, once",
        Feedback,
        errors=(400, 404, 409, 413),
        body=FeedbackBody,
        limited=True,
    ),
    "create_chat_completion": Operation(
        "createChatCompletion",
        "Create a chat completion: plain or streamed",
        ChatCompletion,
        errors=(*_UNREADABLE, 404, 409, 410),
        body=CHAT,
        limited=True,
        streams=(ChatCompletionChunk, ErrorReply),
        done="[DONE]",
    ),
    "create_embeddings": Operation(
        "createEmbeddings",
        "Embed texts",
        EmbeddingList,
        errors=(*_UNREADABLE, 404, 409, 410),
        body=EMBEDDINGS,
        limited=True,
    ),
    "list_keys": Operation(
        "listKeys", "List the tenant's API keys", KeyPage, errors=(400,), query=KeysQuery
    ),
    "create_key": Operation(
        "createKey", "Make an API key", NewKey, errors=_UNREADABLE, body=CreateKeyBody
    ),
    "delete_key": Operation("deleteKey", "Revoke an API key", DeletedKey, errors=(404,)),
    "rotate_key": Operation(
        "rotateKey",
        "Replace an API key, which goes on for a while",
        NewKey,
        errors=(*_UNREADABLE, 404, 409),
        body=RotateKeyBody,
    ),
    "usage_completions": Operation(
        "getCompletionsUsage",
        "Usage of completions over time",
        CompletionsPage,
        errors=(400,),
        query=UsageQuery,
    ),
    "usage_embeddings": Operation(
        "getEmbeddingsUsage",
        "Usage of embeddings over time",
        EmbeddingsPage,
        errors=(400,),
        query=UsageQuery,
    ),
    "costs": Operation(
        "getCosts",
        "What usage cost over time; fees and credits are on the invoice",
        CostsPage,
        errors=(400,),
        query=CostsQuery,
    ),
    "preview_invoice": Operation(
        "previewInvoice",
        "The invoice, if the month ended now",
        TenantInvoice,
        errors=(400, 409),
        query=PreviewQuery,
    ),
    "list_invoices": Operation(
        "listInvoices", "List the issued invoices", InvoicePage, errors=(400,), query=InvoicesQuery
    ),
    "list_models": Operation("listModels", "List the models", ModelList),
    "retrieve_model": Operation("retrieveModel", "Retrieve a model", Model, errors=(404,)),
}
"""By the name of the function that serves the route."""
