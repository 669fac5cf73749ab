"""Idempotency keys (https://docs.stripe.com/api/idempotent_requests).

v1 keeps the first answer, errors and 500s included, once the endpoint began to run, and replays it
for the same parameters; other parameters are refused. Keys can be removed after 24 hours. v2 does
not repeat what succeeded, and runs again what failed, for 30 days
(https://docs.stripe.com/api-v2-overview#idempotency).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.stripe_fake.failures import Failure

KEPT_S: Final = 24 * 3_600
KEPT_V2_S: Final = 30 * 24 * 3_600
_LONGEST: Final = 255


@dataclass
class Answer:
    """What is sent back."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class _Kept:
    fingerprint: tuple[str, str]
    at: int
    request_id: str
    answer: Answer | None = None


class Keys:
    """The keys of one account."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def begin(self, key: str, path: str, body: str, request_id: str, now: int) -> Answer | None:
        """The answer to replay, or nothing: then the request runs and `end` follows.

        Raises:
            Failure: the key is in use, or was used for something else.
        """
        if len(key) > _LONGEST:
            message = "Idempotency keys are up to 255 characters long."
            raise Failure(400, message, kind="idempotency_error", saved=False)
        kept = self._kept.get(key)
        if kept is None or now - kept.at >= (KEPT_S if path.startswith("/v1/") else KEPT_V2_S):
            self._kept[key] = _Kept((path, body), now, request_id)
            return None
        if kept.fingerprint != (path, body):
            raise _mismatch(key, kept.fingerprint[0], path)
        if kept.answer is None:
            message = "There is currently another in-progress request using this Idempotent Key "
            message += "(that probably means you submitted twice, and the other request is still "
            message += f"going through): {key}. Please try again later."
            raise Failure(409, message, "idempotency_key_in_use", kind="idempotency_error")
        headers = {"idempotent-replayed": "true", "original-request": kept.request_id}
        return Answer(kept.answer.status, kept.answer.body, {**kept.answer.headers, **headers})

    def end(self, key: str, answer: Answer | None) -> None:
        """Keep the answer; nothing frees the key for another try."""
        if answer is None:
            del self._kept[key]
        else:
            self._kept[key].answer = answer


def _mismatch(key: str, first: str, second: str) -> Failure:
    message = "Keys for idempotent requests can only be used with the same parameters they were "
    message += f"first used with. Try using a key other than '{key}' if you meant to execute a "
    message += "different request."
    if first != second:
        message = "Keys for idempotent requests can only be used for the same endpoint they were "
        message += f"first used for ('{second}' vs '{first}'). Try using a key other than '{key}'."
    return Failure(400, message, kind="idempotency_error")
