"""`/v1/api_keys`: a tenant's admin manages the tenant's own keys.

The vendor's API keeps this under its organization; the objects have its field names.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from penstock_realtime.domain.parameters import invalid, parse_object
from penstock_realtime.domain.rendering import compact
from penstock_realtime.http.body import read_body
from penstock_realtime.ports import AccountDesk
from penstock_realtime.serving.authentication import Authentication
from penstock_shared.contracts.account_commands import (
    DEFAULT_OVERLAP_S,
    CreatedKey,
    CreateKey,
    KeyList,
    Lifetime,
    ListKeys,
    NewName,
    Overlap,
    RevokeKey,
    RotateKey,
)
from penstock_shared.contracts.accounts import API_KEY_PREFIX, KeyRecord, Role
from penstock_shared.contracts.errors import NotFoundError
from penstock_shared.contracts.ids import KeyId
from penstock_shared.runtime.access import Identity, Permission

M = TypeVar("M", bound=BaseModel)
_MAX_BODY_BYTES: Final = 16 * 1024
_KEY_ID: Final = TypeAdapter[str](KeyId)


class KeysQuery(BaseModel):
    """Which page of the keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    after: KeyId | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20


class CreateKeyBody(BaseModel):
    """A new key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: NewName
    role: Role = Role.MEMBER
    expires_in_seconds: Lifetime | None = None


class RotateKeyBody(BaseModel):
    """How long the old key goes on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    overlap_seconds: Overlap = DEFAULT_OVERLAP_S


@dataclass(frozen=True, slots=True)
class KeysApi:
    """The endpoints of one resource. The caller's tenant is in every command (I8)."""

    authentication: Authentication
    desk: AccountDesk

    async def list_keys(self, request: Request) -> Response:
        """`GET /v1/api_keys`: a page in the order of their making; revoked ones are among them."""
        identity = await self._admin(request)
        query = _parse(KeysQuery, dict(request.query_params))
        question = ListKeys(tenant=identity.tenant.tenant, **query.model_dump())
        page = await self.desk.ask("list-keys", question, KeyList)
        data = [{**_key(key), "last_used_at": _unix(key.last_used_at)} for key in page.keys]
        ends = {
            "first_id": page.keys[0].key_id if page.keys else None,
            "last_id": page.keys[-1].key_id if page.keys else None,
        }
        return _json({"object": "list", "data": data, **ends, "has_more": page.has_more})

    async def create_key(self, request: Request) -> Response:
        """`POST /v1/api_keys`: the answer is the only one that ever has the secret, as `value`."""
        identity = await self._admin(request)
        body = _parse(CreateKeyBody, parse_object(await read_body(request, _MAX_BODY_BYTES)))
        command = CreateKey(
            tenant=identity.tenant.tenant,
            name=body.name,
            role=body.role,
            expires_in_s=body.expires_in_seconds,
            by=identity.key_id,
        )
        return _created(await self.desk.ask("create-key", command, CreatedKey))

    async def rotate_key(self, request: Request) -> Response:
        """`POST /v1/api_keys/{id}/rotate`: a successor; the key itself ends after the overlap."""
        identity = await self._admin(request)
        raw = await read_body(request, _MAX_BODY_BYTES)
        body = _parse(RotateKeyBody, parse_object(raw) if raw else {})
        command = RotateKey(
            key_id=_key_id(request),
            overlap_s=body.overlap_seconds,
            tenant=identity.tenant.tenant,
            by=identity.key_id,
        )
        return _created(await self.desk.ask("rotate-key", command, CreatedKey))

    async def delete_key(self, request: Request) -> Response:
        """`DELETE /v1/api_keys/{id}`: revoked, everywhere within a second."""
        identity = await self._admin(request)
        command = RevokeKey(
            key_id=_key_id(request), tenant=identity.tenant.tenant, by=identity.key_id
        )
        key = await self.desk.ask("revoke-key", command, KeyRecord)
        return _json({"id": key.key_id, "object": "api_key.deleted", "deleted": True})

    async def _admin(self, request: Request) -> Identity:
        authorization = request.headers.get("authorization")
        return await self.authentication.caller(authorization, Permission.KEYS)


def _parse(model: type[M], given: dict[str, Any]) -> M:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise invalid(error) from error


def _key_id(request: Request) -> str:
    try:
        return _KEY_ID.validate_python(request.path_params["key_id"])
    except ValidationError as error:
        msg = "There is no such key: the list of keys shows their ids."
        raise NotFoundError(msg, code="key_not_found", param="key_id") from error


def _created(created: CreatedKey) -> Response:
    return _json({**_key(created.key), "value": created.secret})


def _key(key: KeyRecord) -> dict[str, Any]:
    return {
        "id": key.key_id,
        "object": "api_key",
        "name": key.name,
        "role": key.role.value,
        "redacted_value": f"{API_KEY_PREFIX}…{key.hint}",
        "created_at": _unix(key.created_at),
        "expires_at": _unix(key.expires_at),
        "revoked_at": _unix(key.revoked_at),
    }


def _unix(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp())


def _json(body: dict[str, Any]) -> Response:
    return Response(compact(body), media_type="application/json")
