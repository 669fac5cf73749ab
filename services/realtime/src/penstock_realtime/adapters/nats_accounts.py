"""Commands and questions to billing by request/reply: accounts, and what was used and costs."""

from __future__ import annotations

from typing import Final, TypeVar

import nats.errors
from pydantic import BaseModel, ValidationError

from penstock_shared.contracts import subjects
from penstock_shared.contracts.errors import (
    ConflictError,
    ErrorReply,
    NotFoundError,
    PenstockError,
    PermanentError,
    UnavailableError,
)
from penstock_shared.runtime.broker import Broker

_TIMEOUT_S: Final = 5.0
_MEANING: Final[dict[str, type[PermanentError]]] = {
    "key_not_found": NotFoundError,
    "key_has_ended": ConflictError,
    "too_many_keys": ConflictError,
    "invalid_schema": PermanentError,
    "invalid_page": PermanentError,
    "answer_too_large": PermanentError,
    "month_not_begun": ConflictError,
    "invoice_not_found": NotFoundError,
}
A = TypeVar("A", bound=BaseModel)


class NatsAccountDesk:
    """`AccountDesk` over NATS. Asked once: a command that is repeated may be done twice."""

    _trouble = "Accounts cannot be changed or listed at the moment: look at them, then again."
    _code = "accounts_unavailable"

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def ask(self, verb: str, question: BaseModel, answer: type[A]) -> A:
        """Send one command and wait for billing's answer.

        Raises:
            PenstockError: billing refused, in its own words.
            UnavailableError: billing does not answer; the command may be carried out or not.
        """
        try:
            msg = await self._broker.client.request(
                self._subject(verb), question.model_dump_json().encode(), timeout=_TIMEOUT_S
            )
            return self._parse(msg.data, answer)
        except (nats.errors.Error, TimeoutError, OSError, ValidationError) as error:
            raise UnavailableError(self._trouble, code=self._code) from error

    @staticmethod
    def _subject(verb: str) -> str:
        return subjects.accounts(verb)

    def _parse(self, raw: bytes, answer: type[A]) -> A:
        try:
            return answer.model_validate_json(raw)
        except ValidationError:
            error = ErrorReply.model_validate_json(raw).error
        raise self._refusal(error.code, error.message, error.param)

    def _refusal(self, code: str, message: str, param: str | None) -> PenstockError:
        kind = _MEANING.get(code)
        if kind is None:
            return UnavailableError(self._trouble, code=code)
        return kind(message, code=code, param=param)


class NatsBillingDesk(NatsAccountDesk):
    """`BillingDesk` over NATS: questions only, which may be asked again."""

    _trouble = "Usage and invoices cannot be read at the moment: ask again."
    _code = "billing_unavailable"

    @staticmethod
    def _subject(verb: str) -> str:
        return subjects.billing(verb)
