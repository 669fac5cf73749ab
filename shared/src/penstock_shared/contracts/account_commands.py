"""What operators, and a tenant's admins through realtime, ask billing about accounts.

Each command is a verb: `v1.platform.accounts.<verb>`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
)

from penstock_shared.contracts.accounts import (
    PRINTABLE,
    IdentityProvider,
    KeyRecord,
    Name,
    Role,
    TenantRecord,
    TenantStatus,
)
from penstock_shared.contracts.ids import KeyId, TenantId
from penstock_shared.contracts.quotas import Quota, QuotaState

MAX_KEYS_PER_PAGE: Final = 1_000
MAX_USES_PER_REPORT: Final = 1_000
DEFAULT_OVERLAP_S: Final = 24 * 3600
_MAX_OVERLAP_S: Final = 30 * 24 * 3600
_MAX_LIFETIME_S: Final = 10 * 365 * 24 * 3600
_PerMinute = Annotated[int, Field(ge=1, le=1_000_000_000)]

Lifetime = Annotated[int, Field(ge=60, le=_MAX_LIFETIME_S)]
"""Seconds that a key lives."""
Overlap = Annotated[int, Field(ge=0, le=_MAX_OVERLAP_S)]
"""Seconds that a key goes on working after its successor was made."""

NewName = Annotated[Name, StringConstraints(pattern=PRINTABLE)]


class _Command(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NewIdentityProvider(IdentityProvider):
    """As in the record, which also reads what a later release wrote; here a typo is refused."""

    model_config = ConfigDict(extra="forbid")


def _one_of_each(quotas: tuple[Quota, ...]) -> tuple[Quota, ...]:
    """In one order, so that the same quotas are the same record."""
    by_name = {(quota.unit, quota.period, quota.soft): quota for quota in quotas}
    if len(by_name) < len(quotas):
        msg = "one hard and one soft quota for each unit and period"
        raise ValueError(msg)
    return tuple(by_name[name] for name in sorted(by_name))


class _TenantTerms(_Command):
    requests_per_minute: _PerMinute = 60_000
    tokens_per_minute: _PerMinute | None = None
    user_requests_per_minute: _PerMinute | None = None
    user_tokens_per_minute: _PerMinute | None = None
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    weight: Annotated[int, Field(ge=1, le=100)] = 1
    identity_providers: Annotated[tuple[NewIdentityProvider, ...], Field(max_length=8)] = ()
    quotas: Annotated[tuple[Quota, ...], AfterValidator(_one_of_each)] = ()


class CreateTenant(_TenantTerms):
    """Verb `create-tenant`."""

    tenant: TenantId
    name: NewName


class UpdateTenant(_TenantTerms):
    """Verb `update-tenant`: only the fields that are sent change; null lifts a limit."""

    tenant: TenantId
    name: NewName = "unchanged"
    status: TenantStatus = TenantStatus.ACTIVE


class _KeyCommand(_Command):
    by: KeyId | None = None
    """The admin of the tenant who asks: a key or a subject; None for an operator."""


class CreateKey(_KeyCommand):
    """Verb `create-key`."""

    tenant: TenantId
    name: NewName
    role: Role = Role.MEMBER
    expires_in_s: Lifetime | None = None


class RotateKey(_KeyCommand):
    """Verb `rotate-key`: a new secret with the same name, role and lifetime."""

    key_id: KeyId
    overlap_s: Overlap = DEFAULT_OVERLAP_S
    tenant: TenantId | None = None
    """Only if it is this tenant's key: another's is not found (I8). None for an operator."""


class RevokeKey(_KeyCommand):
    """Verb `revoke-key`."""

    key_id: KeyId
    tenant: TenantId | None = None
    """As in `RotateKey`."""


class ListAccounts(_Command):
    """Verb `list-tenants`; all tenants when None."""

    tenant: TenantId | None = None


class ListQuotas(_Command):
    """Verb `list-quotas`; all tenants' when None."""

    tenant: TenantId | None = None


class ListKeys(_Command):
    """Verb `list-keys`, in the order of their making; all tenants' when None."""

    tenant: TenantId | None = None
    after: KeyId | None = None
    """The last key of the page before."""
    limit: Annotated[int, Field(ge=1, le=MAX_KEYS_PER_PAGE)] = MAX_KEYS_PER_PAGE


class KeyUse(_Command):
    """When a key last let somebody in."""

    key_id: KeyId
    at: AwareDatetime


class ReportKeyUse(_Command):
    """Verb `report-key-use`, from realtime; the latest time counts, in whatever order it comes."""

    uses: Annotated[tuple[KeyUse, ...], Field(max_length=MAX_USES_PER_REPORT)]


class CreatedKey(BaseModel):
    """Answer to `create-key` and `rotate-key`: the only time that the secret is shown."""

    model_config = ConfigDict(frozen=True)

    key: KeyRecord
    secret: str


class TenantList(BaseModel):
    """Answer to `list-tenants`."""

    model_config = ConfigDict(frozen=True)

    tenants: tuple[TenantRecord, ...]


class QuotaList(BaseModel):
    """Answer to `list-quotas`."""

    model_config = ConfigDict(frozen=True)

    quotas: tuple[QuotaState, ...]


class ListedKey(KeyRecord):
    """A key and when it was last used, to the minute.

    The bucket has no such field: every use would wake every watcher.
    """

    last_used_at: datetime | None = None


class KeyList(BaseModel):
    """Answer to `list-keys`."""

    model_config = ConfigDict(frozen=True)

    keys: tuple[ListedKey, ...]
    has_more: bool = False


class KeyUseNoted(BaseModel):
    """Answer to `report-key-use`."""

    model_config = ConfigDict(frozen=True)

    noted: int
