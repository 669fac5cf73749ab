"""Inputs that nobody should send: mutations of valid ones, all from one seeded generator."""

from __future__ import annotations

import json
import random
from typing import Any, Final

JSON_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**70), 10**400, 0.0, -0.5, 1e308, "", " ", "\x00",
    "\u202e", "\ud800", "auto", "x" * 5000, "𐀀" * 300, "../../etc/passwd", "${jndi:ldap://x}",
    "'; drop table requests; --", [], {}, [[]], [None] * 200, {"": None}, {"a": {"b": {"c": []}}},
    {"__proto__": {"x": 1}}, {"type": "response.create"}, ["text"], {"type": "json_object"},
)  # fmt: skip
"""What takes the place of something right; lone surrogates and huge numbers included."""
TOKENS: Final = (
    b"", b"\x00", b"\xff\xfe", b"NaN", b"Infinity", b"1e99999", b"}{", b"[" * 3000, b"\xed\xa0\x80",
    b'{"a":1,"a":2}', b"\xef\xbb\xbf{}", b"null", b'"', b"\\u12", b"\r\n\r\n", b"data: {}\n\n",
)  # fmt: skip
HEADER_VALUES: Final = (
    "", " ", "\t", "0", "-1", "99999999999999999999", "chunked", "gzip", "identity, chunked", "*/*",
    "Bearer", "Bearer ", "Bearer  x", "Basic eDp4", "é", "\x7f", "00-" + "f" * 32 + "-" + "f" * 16,
    "a" * 300, "a" * 9000, "keep-alive, upgrade", "100-continue", "text/plain; charset=utf-16",
)  # fmt: skip
HEADER_NAMES: Final = (
    "Content-Type", "Content-Length", "Transfer-Encoding", "Content-Encoding", "Expect", "Accept",
    "Authorization", "Idempotency-Key", "traceparent", "Origin", "Cookie", "Range", "Upgrade",
    "X-Forwarded-For", "OpenAI-Beta", "Connection", "Host", "X-" + "y" * 200,
)  # fmt: skip
PATH_PIECES: Final = (
    "v1", "responses", "chat", "completions", "embeddings", "models", "auto", "cancel", "resp_1",
    "..", "%2e%2e", "%00", "%ff", "%", "", "a" * 2000, "é", "*", "{id}", "input_items", "feedback",
    "resp_0190e0f00000700080000000000000000000", "metrics", "docs", "openapi.json",
)  # fmt: skip
QUERIES: Final = (
    "", "stream=true", "stream=1&stream=0", "starting_after=-1", "starting_after=9" * 30,
    "include[]=x", "%", "&&&", "=", "a=%00", "stream=true&starting_after=abc", "x=" + "y" * 3000,
)  # fmt: skip
_MUTATIONS_AT_MOST: Final = 3


class Fuzzer:
    """One source of bad inputs."""

    def __init__(self, seed: int, secret: str) -> None:
        self.rng = random.Random(seed)
        self._secret = secret
        """Stands in every prompt, and must stand in no log."""

    def body(self, valid: dict[str, Any]) -> bytes:
        """A JSON document near a valid one; one in four is broken as text, too."""
        value = self._marked(valid)
        for _ in range(self.rng.randint(0, _MUTATIONS_AT_MOST)):
            value = self._mutated(value)
        raw = json.dumps(value).encode()
        return self.broken(raw) if self.rng.random() < 0.25 else raw

    def broken(self, raw: bytes) -> bytes:
        """Bytes near the given ones."""
        rng = self.rng
        at = rng.randint(0, len(raw))
        match rng.randrange(4):
            case 0:
                return raw[:at]
            case 1:
                return raw[:at] + rng.choice(TOKENS) + raw[at:]
            case 2:
                return raw[:at] + raw[at + rng.randint(1, 9) :]
            case _:
                changed = bytearray(raw or b"x")
                for _ in range(rng.randint(1, 8)):
                    changed[rng.randrange(len(changed))] = rng.randrange(256)
                return bytes(changed)

    def headers(self, valid: dict[str, str]) -> dict[str, str]:
        """Headers near the given ones."""
        rng, given = self.rng, dict(valid)
        for _ in range(rng.randint(0, 2)):
            given[rng.choice(HEADER_NAMES)] = rng.choice((*HEADER_VALUES, f"Bearer {self._secret}"))
        if rng.random() < 0.1:
            given.pop(rng.choice(list(given)), None)
        return given

    def path(self) -> str:
        """Some path, with a query perhaps."""
        rng = self.rng
        pieces = rng.choices(PATH_PIECES, k=rng.randint(1, 4))
        query = rng.choice((*QUERIES, f"api_key={self._secret}"))
        return "/v1/" + "/".join(pieces) + (f"?{query}" if query else "")

    def _marked(self, valid: dict[str, Any]) -> Any:
        return json.loads(json.dumps(valid).replace("SECRET", self._secret))

    def _mutated(self, value: Any) -> Any:
        rng = self.rng
        if isinstance(value, dict) and value and rng.random() < 0.85:
            changed = dict(value)
            name = rng.choice(list(changed))
            match rng.randrange(5):
                case 0:
                    del changed[name]
                case 1:
                    changed[rng.choice(("input", "model", "tools", "x\n", "type", "é"))] = (
                        self._value()
                    )
                case _:
                    changed[name] = self._mutated(changed[name])
            return changed
        if isinstance(value, list) and value and rng.random() < 0.7:
            at = rng.randrange(len(value))
            return [*value[:at], self._mutated(value[at]), *value[at + rng.randint(0, 1) :]]
        return self._value()

    def _value(self) -> Any:
        if self.rng.random() < 0.02:
            deep: Any = 0
            for _ in range(self.rng.choice((50, 400))):
                deep = [deep]
            return deep
        return self.rng.choice((*JSON_VALUES, self._secret))
