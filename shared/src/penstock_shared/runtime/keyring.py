"""Envelope encryption: a data key per tenant and data subject, wrapped by the root key (I10).

AES-256-GCM throughout (NIST SP 800-38D), random 96-bit nonces. The associated data binds a
ciphertext to its tenant, its request (or event) and its field, so that it opens nowhere else.
Destroying the wrapped data key erases everything that it sealed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from penstock_shared.contracts.errors import PermanentError, TransientError
from penstock_shared.runtime.clock import Clock

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_FORMAT: Final = "1."
_ROOT_VERSION: Final = 1
_CACHED_KEYS: Final = 10_000
_CACHE_TTL_S: Final = 60.0
"""How long an erased key may still be used by a process that has it in memory."""


class WrappedKeyStore(Protocol):
    """Where wrapped data keys live."""

    async def get(self, name: str) -> bytes | None:
        """The stored value; None when there never was one. Raises ErasedError when destroyed."""
        ...

    async def create(self, name: str, value: bytes) -> bytes:
        """Store `value` unless the name is taken; return what is stored: the first one wins."""
        ...


def read_root_key(path: Path) -> bytes:
    """Read the root key: 32 bytes in base64.

    Raises:
        PermanentError: the file is missing or malformed; the message says what to do.
    """
    try:
        key = base64.b64decode(path.read_text().strip(), validate=True)
    except (OSError, binascii.Error) as error:
        msg = f"No root key in {path}: restore that file, or set PENSTOCK_ROOT_KEY_FILE."
        raise PermanentError(msg, code="root_key_missing") from error
    if len(key) != _KEY_BYTES:
        msg = f"The root key in {path} has {len(key)} bytes, 32 are needed: restore that file."
        raise PermanentError(msg, code="root_key_malformed")
    return key


@lru_cache(_CACHED_KEYS)
def data_key_name(tenant: str, data_subject: str) -> str:
    """The bucket key of a data subject's wrapped key: the subject itself is not revealed."""
    digest = hashlib.sha256(f"{tenant}\x00{data_subject}".encode()).hexdigest()
    return f"{tenant}.{digest[:32]}"


class Keyring:
    """Seals and opens content. Data keys are cached, bounded in number and time."""

    def __init__(
        self,
        root_key: bytes,
        store: WrappedKeyStore,
        clock: Clock,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._root = AESGCM(root_key)
        self._store = store
        self._clock = clock
        self._random_bytes = random_bytes
        self._cache: OrderedDict[str, tuple[AESGCM, float]] = OrderedDict()

    async def seal(
        self, tenant: str, data_subject: str, owner: str, field: str, plain: str | bytes
    ) -> str:
        """Encrypt `plain`, bound to tenant, `owner` (request or event id) and `field`."""
        key = await self._key(tenant, data_subject, create=True)
        data = plain.encode() if isinstance(plain, str) else plain
        nonce = self._random_bytes(_NONCE_BYTES)
        sealed = nonce + key.encrypt(nonce, data, _binding(tenant, owner, field))
        return _FORMAT + base64.b64encode(sealed).decode()

    async def open(
        self, tenant: str, data_subject: str, owner: str, field: str, sealed: str
    ) -> bytes:
        """Decrypt what `seal` made.

        Raises:
            TransientError: the data key is not there (yet).
            ErasedError: the data key was destroyed.
            PermanentError: the ciphertext is not what was sealed for this place.
        """
        key = await self._key(tenant, data_subject, create=False)
        try:
            raw = base64.b64decode(sealed.removeprefix(_FORMAT), validate=True)
            return key.decrypt(
                raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _binding(tenant, owner, field)
            )
        except (InvalidTag, binascii.Error, ValueError) as error:
            msg = "The encrypted content was changed, or belongs to something else."
            raise PermanentError(msg, code="content_unreadable") from error

    async def _key(self, tenant: str, data_subject: str, *, create: bool) -> AESGCM:
        name = data_key_name(tenant, data_subject)
        now_s = self._clock.monotonic_s()
        cached = self._cache.get(name)
        if cached is not None and cached[1] > now_s:
            self._cache.move_to_end(name)
            return cached[0]
        stored = await self._store.get(name)
        if stored is None:
            if not create:
                msg = "The key of this content is not there yet."
                raise TransientError(msg, code="key_missing")
            stored = await self._store.create(name, self._wrap(name, self._random_bytes(32)))
        key = AESGCM(self._unwrap(name, stored))
        self._cache[name] = (key, now_s + _CACHE_TTL_S)
        while len(self._cache) > _CACHED_KEYS:
            self._cache.popitem(last=False)
        return key

    def _wrap(self, name: str, key: bytes) -> bytes:
        nonce = self._random_bytes(_NONCE_BYTES)
        wrapped = base64.b64encode(nonce + self._root.encrypt(nonce, key, name.encode())).decode()
        return json.dumps({"root_version": _ROOT_VERSION, "wrapped": wrapped}).encode()

    def _unwrap(self, name: str, stored: bytes) -> bytes:
        record = json.loads(stored)
        raw = base64.b64decode(record["wrapped"])
        try:
            return self._root.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], name.encode())
        except InvalidTag as error:
            msg = (
                f"Root key version {record['root_version']} is needed to open this content: "
                "set PENSTOCK_ROOT_KEY_FILE to it."
            )
            raise PermanentError(msg, code="root_key_wrong") from error


def _binding(tenant: str, owner: str, field: str) -> bytes:
    return f"{tenant}\x00{owner}\x00{field}".encode()
