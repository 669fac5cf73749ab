"""From a job's sealed content to a run that an engine can take."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, cast

from pydantic import ValidationError

from penstock_shared.contracts import subjects
from penstock_shared.contracts.errors import PermanentError, SchemaError
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.models import ModelKind
from penstock_shared.contracts.requests import Content
from penstock_shared.contracts.responses import RUN_NUMBERS
from penstock_shared.runtime.clock import Clock, IdSource
from penstock_shared.runtime.keyring import Keyring
from penstock_worker.domain.embedding import Embedding
from penstock_worker.domain.ending import Run
from penstock_worker.domain.functions import ANY_ARGUMENTS, Functions
from penstock_worker.domain.generation import Generation
from penstock_worker.domain.resident import Resident
from penstock_worker.errors import ConversationError
from penstock_worker.ports import (
    AnswerSchema,
    AnswerSchemas,
    Delivered,
    DeliveredFrames,
    EmbeddingEngine,
    SamplingOptions,
    TextEngine,
)

WRITE_MARGIN: Final = timedelta(seconds=0.5)
"""A run stops so long before its deadline: the fact must be written within it."""
_LONG_BYTES: Final = 8 * 1024


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run, and what its answer must satisfy."""

    run: Run
    schema: AnswerSchema | None
    functions: Functions


class Preparation:
    """Opens, tokenises, and finds out where an earlier run was."""

    def __init__(
        self,
        keyring: Keyring,
        schemas: AnswerSchemas,
        frames: DeliveredFrames,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._keyring = keyring
        self._schemas = schemas
        self._frames = frames
        self._clock = clock
        self._ids = ids

    async def prepare(self, job: Job, resident: Resident, *, holder: int) -> Prepared:
        """Everything that comes before the line; `holder` counts those who got the job, from 1.

        Raises:
            PermanentError: the content cannot be run, and the message says why: too long
                (ContextLengthError), of another kind (ConversationError), erased (ErasedError),
                or with a schema that is none.
            TransientError: the key is not there yet.
        """
        sealed = await self._keyring.open(
            job.tenant, job.data_subject, job.request_id, "content", job.content
        )
        content = _content(sealed)
        _refuse_empty(content)
        _refuse_other_kind(content, resident)
        schema = (
            None
            if content.output_schema is None
            else await self._schemas.compile(job.tenant, content.output_schema)
        )
        functions = await self._functions(job.tenant, content)
        subject = subjects.responses(job.tenant, job.request_id)
        if resident.kind is ModelKind.EMBEDDING:
            work: Generation | Embedding = await self._embedding(job, resident, content)
        else:
            must_pass = schema is not None or job.min_confidence is not None
            checked = content.must_call or must_pass
            # Of what is withheld nobody has seen anything, and its check needs all of a run.
            goes_on = holder > 1 and not checked
            shown = await self._frames.delivered(subject, job.attempt) if goes_on else Delivered()
            tokens = await _encode(resident, content, len(sealed))
            work = self._generation(job, resident, tokens, shown, checked=checked)
            work.first_number = RUN_NUMBERS * (holder - 1)
        run = Run(job, self._ids.new(), subject, resident.kind, work)
        return Prepared(run, schema, functions)

    async def _functions(self, tenant: str, content: Content) -> Functions:
        """Errors count the function instead of naming it: they are logged unsealed (I10)."""
        parameters = []
        for number, tool in enumerate(content.tools, 1):
            schema = ANY_ARGUMENTS if tool.parameters is None else tool.parameters
            try:
                parameters.append(await self._schemas.compile(tenant, schema))
            except PermanentError as error:
                msg = f"The parameters of function {number} of those that may be called: {error}"
                raise PermanentError(msg, code=error.code, param="tools") from error
        return Functions(parameters, content.must_call)

    async def _embedding(self, job: Job, resident: Resident, content: Content) -> Embedding:
        engine = cast("EmbeddingEngine", resident.engine)
        texts = await asyncio.to_thread(engine.tokenize, content.texts)
        return Embedding(texts, engine.dimensions, self._stop_at_s(job))

    def _generation(
        self, job: Job, resident: Resident, prompt: list[str], shown: Delivered, *, checked: bool
    ) -> Generation:
        engine = cast("TextEngine", resident.engine)
        sampling, room = job.sampling, engine.room(prompt)
        begun = engine.encode_answer(shown.text) if shown.text else []
        return Generation(
            prompt=prompt,
            options=(
                SamplingOptions(sampling.temperature, sampling.top_p)
                if sampling.temperature
                else SamplingOptions()
            ),
            limit=min(sampling.max_output_tokens or room, room) - len(begun),
            stop_at_s=self._stop_at_s(job),
            detokenizer=engine.detokenizer(begun),
            shown=shown,
            begun=begun,
            withheld=checked,
        )

    def _stop_at_s(self, job: Job) -> float:
        remaining = job.deadline - WRITE_MARGIN - self._clock.now()
        return self._clock.monotonic_s() + remaining.total_seconds()


def _content(sealed: bytes) -> Content:
    try:
        return Content.model_validate_json(sealed)
    except ValidationError as error:
        raise SchemaError("The request's content is unreadable.", code="content_invalid") from error


def _refuse_empty(content: Content) -> None:
    """Edge and router refuse it first; a job by hand shall not have an answer made up."""
    said = any(message.content.strip() for message in content.messages)
    if not said and not (content.texts and all(text.strip() for text in content.texts)):
        raise ConversationError("The input is empty.", code="empty_input", param="input")


def _refuse_other_kind(content: Content, resident: Resident) -> None:
    wants_messages = resident.kind is ModelKind.TEXT
    if wants_messages is bool(content.messages):
        return
    takes = "messages" if wants_messages else "texts"
    msg = f"{resident.name} is a model for {resident.kind.value} and takes {takes}."
    raise ConversationError(msg, code="wrong_model_kind", param="model")


async def _encode(resident: Resident, content: Content, size_bytes: int) -> list[str]:
    engine = cast("TextEngine", resident.engine)
    if size_bytes > _LONG_BYTES:  # tokenising it here would hold up every stream
        return await asyncio.to_thread(engine.encode, content)
    return engine.encode(content)
