"""From an authenticated call to an accepted request: limit, seal, listen, ask the router."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

from penstock_realtime.domain.generation_request import GenerationRequest
from penstock_realtime.domain.response_object import ResponseHead
from penstock_realtime.errors import RefusedError
from penstock_realtime.ports import Budget, CancelCommands, ModelCatalogue, Policy, RouterGateway
from penstock_realtime.serving.conversation import Conversations
from penstock_realtime.serving.following import Following, Sources
from penstock_realtime.serving.resuming import open_content
from penstock_shared.contracts.errors import (
    ConflictError,
    NotFoundError,
    PermanentError,
    TransientError,
    UnavailableError,
)
from penstock_shared.contracts.ids import keyed_request_id
from penstock_shared.contracts.requests import (
    AUTO_MODEL,
    Accepted,
    Admission,
    ChatMessage,
    Content,
)
from penstock_shared.contracts.responses import FinalFrame
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.access import Identity
from penstock_shared.runtime.rate_limit import Allowance, Demand, RateLimiter, most_tokens
from penstock_shared.runtime.telemetry import child_traceparent

_MAX_IDEMPOTENCY_KEY_CHARS = 255


@dataclass(frozen=True, slots=True)
class Call:
    """Who calls, and what the transport knows of the call."""

    identity: Identity
    request_id: str
    keyed: bool = False
    """The id comes from an idempotency key: the request may have been accepted before."""
    traceparent: str | None = None
    address: str | None = None
    """Of the client."""

    @property
    def tenant(self) -> str:
        """The caller's tenant."""
        return self.identity.tenant.tenant


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that is durable, and the way to follow it."""

    call: Call
    given: GenerationRequest
    head: ResponseHead
    following: Following
    accepted: Accepted
    charged: Demand
    """What the limits have counted."""
    since_s: float
    """When they did, by this instance's own clock: the router's may be another."""


@dataclass(frozen=True, slots=True)
class Admissions:
    """The edge's part of admission."""

    limiter: RateLimiter
    models: ModelCatalogue
    router: RouterGateway
    commands: CancelCommands
    sources: Sources
    conversations: Conversations

    def identify(
        self,
        identity: Identity,
        fresh_id: str,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
        address: str | None = None,
    ) -> Call:
        """Name the request: `fresh_id`, or what an idempotency key names on every instance.

        Raises:
            PermanentError: the key is too long.
        """
        if not idempotency_key:
            return Call(identity, fresh_id, traceparent=traceparent, address=address)
        if len(idempotency_key) > _MAX_IDEMPOTENCY_KEY_CHARS:
            msg = f"'Idempotency-Key' may have {_MAX_IDEMPOTENCY_KEY_CHARS} characters."
            raise PermanentError(msg, code="invalid_idempotency_key", param="Idempotency-Key")
        request_id = keyed_request_id(identity.tenant.tenant, idempotency_key)
        return Call(identity, request_id, keyed=True, traceparent=traceparent, address=address)

    async def limit(self, call: Call, given: GenerationRequest | None) -> Allowance:
        """Count the request, None if it was not understood; `require` refuses what is over."""
        return await self.limiter.take(_demand(call, given))

    def settle(self, admitted: Admitted, final: FinalFrame) -> None:
        """Tell the limits what the request has really used; an answer that was there used none."""
        usage = final.usage
        used = 0 if admitted.accepted.ended else usage.input_tokens + usage.output_tokens
        self._settle(admitted.charged, used, admitted.since_s)

    async def admit(
        self,
        call: Call,
        given: GenerationRequest,
        lane: Lane,
        budget: Budget | None = None,
        policy: Policy = Policy.BLOCK,
    ) -> Admitted:
        """Returns once the request is durable (I1), with its frames already listened for.

        What its reader does not take counts against the budget; by default it has its own.

        Raises:
            NotFoundError: the model does not exist.
            PermanentError: it is of another kind, or there is no response to go on with.
            ConflictError: its idempotency key names another request.
            RefusedError: the router said no.
            UnavailableError: no router answered.
        """
        since_s = self.sources.clock.monotonic_s()
        self._require_model(given)
        tenant, key_id = call.tenant, call.identity.key_id
        subject = given.safety_identifier or key_id
        before = await self.conversations.before(tenant, given)
        content = given.content(before)
        charged = self._charge_before(_demand(call, given), before)
        sealed = await self.sources.vault.seal(tenant, subject, call.request_id, "content", content)
        admission = Admission(
            request_id=call.request_id,
            key_id=key_id,
            data_subject=subject,
            model=given.model,
            lane=lane,
            sampling=given.sampling,
            content=sealed,
            store=given.store,
        )
        feed = await self.sources.frames.open(tenant, call.request_id, budget, policy)
        try:
            accepted = await self.router.admit(
                tenant, admission, child_traceparent(call.traceparent)
            )
            if call.keyed:
                await self._require_same(tenant, admission, content)
        except BaseException as error:
            await feed.close()
            if isinstance(error, RefusedError | ConflictError):
                self._settle(charged, 0, since_s)
            elif isinstance(error, UnavailableError) and not call.keyed:
                # It may be accepted all the same, and whoever tries again makes another one.
                with suppress(TransientError):
                    await self.commands.cancel(tenant, call.request_id)
            raise
        following = Following(self.sources, tenant, call.request_id, feed)
        head = _head(call, given, accepted)
        return Admitted(call, given, head, following, accepted, charged, since_s)

    def _charge_before(self, charged: Demand, before: tuple[ChatMessage, ...]) -> Demand:
        """The conversation that goes on is known only now: it counts without being asked for."""
        if not before:
            return charged
        tokens = most_tokens((turn.content for turn in before), 0)
        self.limiter.settle(replace(charged, tokens=0), tokens, 0.0)
        return replace(charged, tokens=charged.tokens + tokens)

    def _settle(self, charged: Demand, used: int, since_s: float) -> None:
        self.limiter.settle(charged, used, self.sources.clock.monotonic_s() - since_s)

    async def _require_same(self, tenant: str, asked: Admission, content: bytes) -> None:
        """Whoever repeats a key gets the first answer: to another question it would be wrong."""
        routed = await self.sources.facts.routed(tenant, asked.request_id)
        if routed is None or routed.content == asked.content:
            return
        first = await open_content(self.sources, routed)
        if (first, routed.sampling, routed.store) != (
            Content.model_validate_json(content), asked.sampling, asked.store
        ):  # fmt: skip
            msg = "This key was sent with another request before: use a key of its own."
            raise ConflictError(msg, code="idempotency_key_reused", param="Idempotency-Key")

    def _require_model(self, given: GenerationRequest) -> None:
        if given.model == AUTO_MODEL:
            return
        record = self.models.get(given.model)
        if record is None:
            msg = f"The model {given.model!r} does not exist: GET /v1/models lists those that do."
            raise NotFoundError(msg, code="model_not_found", param="model")
        if record.kind is not given.kind:
            msg = (
                f"{given.model!r} is a model for {record.kind.value}, and this asks for "
                f"{given.kind.value}: name another one, or use the API that is made for it."
            )
            raise PermanentError(msg, code="wrong_model_kind", param="model")


def _demand(call: Call, given: GenerationRequest | None) -> Demand:
    tokens = 0 if given is None else given.most_tokens()
    return Demand(call.identity.tenant, call.identity.key_id, call.address, tokens)


def _head(call: Call, given: GenerationRequest, accepted: Accepted) -> ResponseHead:
    return ResponseHead(
        request_id=call.request_id,
        model=accepted.model,
        created_at=accepted.accepted_at,
        echo=given.echo,
        tools=tuple(tool.name for tool in given.tools),
    )
