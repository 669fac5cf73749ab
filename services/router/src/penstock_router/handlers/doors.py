"""The three doors that requests come through, one method each."""

from __future__ import annotations

import random
import uuid
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from penstock_router import metrics
from penstock_router.domain.candidates import kind_asked_for
from penstock_router.handlers.admissions import Admissions
from penstock_router.handlers.submission_limits import SubmissionLimits
from penstock_shared.contracts import subjects
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.complaints import invalid
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.errors import (
    NotFoundError,
    PenstockError,
    PermanentError,
    SchemaError,
    TooLargeError,
    TransientError,
)
from penstock_shared.contracts.ids import keyed_request_id
from penstock_shared.contracts.models import ModelKind, ModelRecord
from penstock_shared.contracts.requests import (
    MAX_INPUT_BYTES,
    Accepted,
    Admission,
    Content,
    Rejected,
)
from penstock_shared.contracts.streams import INGRESS
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.submissions import NATS_KEY, Submission
from penstock_shared.runtime.consumer import Delivery
from penstock_shared.runtime.dead import DeadLetters
from penstock_shared.runtime.keyring import Keyring
from penstock_shared.runtime.kv import BucketMirror
from penstock_shared.runtime.rate_limit import DEFAULT_OUTPUT_TOKENS
from penstock_shared.runtime.settlement import settle

_CONTENT: Final = "content"
M = TypeVar("M", bound=BaseModel)


class Doors:
    """Checks and unpacks what comes, and has it admitted."""

    def __init__(
        self,
        *,
        admissions: Admissions,
        limits: SubmissionLimits,
        keyring: Keyring,
        models: BucketMirror[ModelRecord],
        tenants: BucketMirror[TenantRecord],
        dead: DeadLetters,
        rng: random.Random,
    ) -> None:
        self._admissions = admissions
        self._limits = limits
        self._keyring = keyring
        self._models = models
        self._tenants = tenants
        self._dead = dead
        self._rng = rng

    async def on_admitted(
        self, subject: str, data: bytes, traceparent: str | None
    ) -> Accepted | Rejected:
        """Realtime asks: it has authenticated, limited and sealed already."""
        try:
            tenant = subjects.parse(subject).tenant
            admission = _parse(Admission, data)
            opened = await self._keyring.open(
                tenant,
                admission.data_subject,
                admission.request_id,
                _CONTENT,
                admission.content,
            )
            content = _parse_content(opened)
            return await self._admissions.admit(tenant, admission, content, traceparent)
        except PenstockError as error:
            return rejected(error)

    async def on_submitted(
        self, subject: str, headers: dict[str, str], data: bytes
    ) -> Accepted | Rejected:
        """A tenant's own NATS client asks."""
        try:
            return await self._submit(subject, headers, data)
        except PenstockError as error:
            return rejected(error)

    async def on_queued(self, delivery: Delivery) -> None:
        """A tenant fired and forgot: admitted, retried, or buried."""

        async def handle(queued: Delivery) -> None:
            redelivered = queued.deliveries > 1
            await self._submit(queued.subject, queued.headers, queued.data, redelivered=redelivered)

        async def bury(queued: Delivery, error: PenstockError) -> None:
            metrics.ADMISSIONS.labels("dead", error.code).inc()
            await self._dead.bury(INGRESS, queued, error)

        await settle(delivery, handle, bury, self._rng)

    async def _submit(
        self, subject: str, headers: dict[str, str], data: bytes, *, redelivered: bool = False
    ) -> Accepted:
        tenant = self._known(subjects.parse(subject).tenant)
        try:
            envelope = Envelope.from_headers(headers)
            submission, content = self._read(data)
        except PenstockError:
            await self._limits.take_repeated(tenant)  # what is no good counts all the same
            raise
        name, request_id = tenant.tenant, request_id_of(tenant.tenant, envelope.id)
        event = subjects.request_event(name, request_id)
        charged = await self._count(tenant, event, submission, content, redelivered=redelivered)
        data_subject = submission.safety_identifier or f"{NATS_KEY}:{name}"
        try:
            admission = Admission(
                request_id=request_id,
                key_id=NATS_KEY,
                data_subject=data_subject,
                model=submission.model,
                lane=Lane.STANDARD,
                sampling=submission.sampling(),
                content=await self._keyring.seal(
                    name, data_subject, request_id, _CONTENT, content.to_seal()
                ),
            )
            accepted = await self._admissions.admit(name, admission, content, envelope.traceparent)
        except PenstockError:
            if charged:
                self._limits.give_back(event)
            raise
        if charged and accepted.ended:  # the answer that there is
            self._limits.give_back(event)
        return accepted

    def _read(self, data: bytes) -> tuple[Submission, Content]:
        if len(data) > MAX_INPUT_BYTES:
            msg = f"The input has {len(data)} bytes, {MAX_INPUT_BYTES} are allowed: shorten it."
            raise TooLargeError(msg, param="input")
        submission = _parse(Submission, data)
        return submission, self._content_of(submission)

    async def _count(
        self,
        tenant: TenantRecord,
        event: str,
        submission: Submission,
        content: Content,
        *,
        redelivered: bool,
    ) -> bool:
        """Against the limits; whether tokens were taken: not for a request that is open already."""
        if not self._admissions.knows(event):
            texts = [*(message.content for message in content.messages), *content.texts]
            await self._limits.take(tenant, event, texts, self._most_output(submission))
            return True
        if not redelivered:  # that was the broker's doing, not the tenant's
            await self._limits.take_repeated(tenant)
        return False

    def _kind_of(self, submission: Submission) -> ModelKind:
        return kind_asked_for(submission.model, tuple(self._models.values()))

    def _most_output(self, submission: Submission) -> int:
        """How many tokens the answer may have; a vector has none."""
        if self._kind_of(submission) is ModelKind.EMBEDDING:
            return 0
        return submission.max_output_tokens or DEFAULT_OUTPUT_TOKENS

    def _content_of(self, submission: Submission) -> Content:
        """What is sealed: its form depends on the kind of model."""
        try:
            return submission.content(self._kind_of(submission))
        except ValueError as error:
            raise PermanentError(str(error), code="empty_input", param="input") from error

    def _known(self, name: str) -> TenantRecord:
        record = self._tenants.get(name)
        if record is None:
            msg = f"There is no tenant {name!r}."
            raise NotFoundError(msg, code="unknown_tenant")
        refusal = record.refusal()
        if refusal is not None:
            raise refusal
        return record


def request_id_of(tenant: str, event_id: str) -> str:
    """`ce-id` is the request id when it is a UUIDv7, else an idempotency key."""
    try:
        parsed = uuid.UUID(event_id)
    except ValueError:
        return keyed_request_id(tenant, event_id)
    return str(parsed) if parsed.version == 7 else keyed_request_id(tenant, event_id)  # noqa: PLR2004


def rejected(error: PenstockError) -> Rejected:
    """The refusal that goes back; it is no terminal and binds no id."""
    metrics.ADMISSIONS.labels("rejected", error.code).inc()
    return Rejected(
        http_status=error.http_status,
        error=error.body(),
        retry_after_s=error.retry_after_s if isinstance(error, TransientError) else None,
    )


def _parse_content(opened: bytes) -> Content:
    """Realtime's contract, but sealed: nothing has checked it on its way."""
    try:
        return Content.model_validate_json(opened)
    except ValidationError as error:
        msg = "The sealed content is neither a conversation nor texts: seal it anew."
        raise SchemaError(msg, code="content_malformed", param=_CONTENT) from error


def _parse(model: type[M], data: bytes) -> M:
    try:
        return model.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise invalid(error) from error
