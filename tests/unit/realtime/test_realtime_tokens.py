"""What tokens and keys that end mean for those who hold them; no network."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from penstock_realtime.domain.token_claims import claim_at, end_of, role_of, subject_id
from penstock_realtime.errors import InvalidTokenError
from penstock_realtime.ports import TokenOrigin
from penstock_realtime.serving.authentication import Authentication, bearer
from penstock_realtime.serving.key_uses import KeyUses
from penstock_realtime.serving.revocation import Revocations, Revoked
from penstock_realtime.serving.tokens import Tokens
from penstock_shared.contracts.account_commands import MAX_USES_PER_REPORT, ReportKeyUse
from penstock_shared.contracts.accounts import (
    IdentityProvider,
    KeyRecord,
    Role,
    TenantRecord,
    TenantStatus,
    hash_api_key,
    make_api_key,
)
from penstock_shared.contracts.errors import (
    AuthenticationError,
    PenstockError,
    PermissionDeniedError,
    UnavailableError,
)
from penstock_shared.contracts.ids import subject_token
from penstock_shared.runtime.access import AccessControl, Identity, Permission

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
SECRET = make_api_key(lambda n: b"\x07" * n)


class Clock:
    """Stands still unless a test moves it."""

    def __init__(self) -> None:
        self.time = NOON

    def now(self) -> datetime:
        return self.time

    def monotonic_s(self) -> float:
        return self.time.timestamp()


def idp(issuer: str = "https://id.example", **fields: Any) -> IdentityProvider:
    values = {"issuer": issuer, "audiences": ("p",), "default_role": "member", **fields}
    return IdentityProvider.model_validate(values)


def tenant(name: str, *providers: IdentityProvider, **fields: Any) -> TenantRecord:
    return TenantRecord(
        tenant=name, name=name, identity_providers=providers, created_at=NOON, **fields
    )


def key(key_id: str = "key_1", **fields: Any) -> KeyRecord:
    return KeyRecord(key_id=key_id, tenant="acme", name="x", hint="abcd", created_at=NOON, **fields)


class Providers:
    """Believes every token `issuer|audience|subject|end|nonce`, and counts."""

    def __init__(self) -> None:
        self.verified = 0

    def origin(self, token: str) -> TokenOrigin:
        parts = token.split("|")
        if len(parts) != 5:
            raise InvalidTokenError
        return TokenOrigin(parts[0], frozenset(parts[1].split("+")))

    async def verify(self, token: str, provider: IdentityProvider) -> dict[str, Any]:
        self.verified += 1
        issuer, _, subject, end, _ = token.split("|")
        assert issuer == provider.issuer
        return {"iss": issuer, "sub": subject, "exp": float(end)}


class Desk:
    """Billing, which may be away."""

    def __init__(self) -> None:
        self.away = False
        self.heard: list[ReportKeyUse] = []

    async def ask(self, verb: str, question: BaseModel, answer: type[Any]) -> Any:
        assert verb == "report-key-use"
        if self.away:
            raise UnavailableError("away")
        assert isinstance(question, ReportKeyUse)
        self.heard.append(question)
        return answer(noted=len(question.uses))


class Door:
    """The edge's authentication over buckets in memory."""

    def __init__(self, *tenants: TenantRecord, keys: Iterable[KeyRecord] = ()) -> None:
        self.clock, self.providers, self.desk = Clock(), Providers(), Desk()
        self.tenants: Any = {}
        held: Any = {hash_api_key(SECRET): record for record in keys}
        access = AccessControl(held, self.tenants, self.clock)
        self.tokens = Tokens(access, self.providers, self.clock)
        self.uses = KeyUses(self.desk, self.clock)
        self.authentication = Authentication(access, self.tokens, self.uses)
        for record in tenants:
            self.put(record)

    def put(self, record: TenantRecord) -> None:
        self.tenants[record.tenant] = record
        self.tokens.on_tenant(record.tenant, record)

    async def enter(self, secret: str, permission: Permission = Permission.READ) -> Identity:
        return await self.authentication.caller(f"Bearer {secret}", permission)


def token(audience: str = "p", subject: str = "alice", ends_s: float = 300, nonce: str = "") -> str:
    end = int(NOON.timestamp() + ends_s)
    return f"https://id.example|{audience}|{subject}|{end}|{nonce}."


async def test_a_key_that_has_expired() -> None:
    """Refused in the very second, from memory."""
    door = Door(tenant("acme"), keys=[key(expires_at=NOON + timedelta(seconds=1))])
    identity = await door.enter(SECRET)
    assert identity.expires_at == NOON + timedelta(seconds=1)
    door.clock.time += timedelta(seconds=1)
    with pytest.raises(AuthenticationError) as refused:
        await door.enter(SECRET)
    assert refused.value.code == "expired_api_key"


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("permission", list(Permission))
async def test_what_each_role_may(role: Role, permission: Permission) -> None:
    """Read-only reads, members write, too, and admins manage keys."""
    door = Door(tenant("acme"), keys=[key(role=role)])
    allowed = {
        Role.READ_ONLY: {Permission.READ},
        Role.MEMBER: {Permission.READ, Permission.WRITE},
        Role.ADMIN: set(Permission),
    }
    if permission in allowed[role]:
        assert (await door.enter(SECRET, permission)).role is role
    else:
        with pytest.raises(PermissionDeniedError) as refused:
            await door.enter(SECRET, permission)
        assert refused.value.code == "insufficient_permissions"


async def test_a_repeated_token_is_remembered_for_a_while() -> None:
    """Verified once, and again after five minutes or when the provider's record is another."""
    door = Door(tenant("acme", idp()))
    long = token(ends_s=3600)
    for _ in range(3):
        await door.enter(long)
    assert door.providers.verified == 1
    door.clock.time += timedelta(minutes=5)
    await door.enter(long)
    assert door.providers.verified == 2
    door.put(tenant("acme", idp(default_role="read-only")))
    assert (await door.enter(long)).role is Role.READ_ONLY
    assert door.providers.verified == 3


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of tokens pushes out the oldest; each is simply verified again."""
    monkeypatch.setattr("penstock_realtime.serving.tokens._REMEMBERED", 3)
    door = Door(tenant("acme", idp()))
    for n in range(5):
        await door.enter(token(nonce=str(n)))
    assert len(door.tokens._verified) == 3
    await door.enter(token(nonce="0"))
    assert door.providers.verified == 6


async def test_a_removed_tenant_or_provider_is_forgotten() -> None:
    """Neither comes in any more, and the map holds nothing of it."""
    door = Door(tenant("acme", idp(), idp("https://two.example")))
    await door.enter(token())
    door.put(tenant("acme"))
    with pytest.raises(InvalidTokenError):
        await door.enter(token())
    door.tokens.on_tenant("acme", None)
    assert not door.tokens._owners
    assert not door.tokens._owned


names = st.sampled_from(["acme", "globex", "initech"])
audiences = st.sampled_from(["a", "b", "c", "d"])


@given(
    setup=st.dictionaries(names, st.lists(audiences, max_size=3, unique=True)),
    asked=st.lists(audiences, min_size=1, max_size=3, unique=True),
    later=st.dictionaries(names, st.lists(audiences, max_size=3, unique=True)),
)
async def test_a_token_never_opens_another_tenant(
    setup: dict[str, list[str]], asked: list[str], later: dict[str, list[str]]
) -> None:
    """Whatever audiences tenants claim, now and later: the one tenant whose it is, or nobody (I8).

    Claims that overlap cannot come from billing; they must still not let anybody in as another.
    """
    door = Door()
    for claims in (setup, later):
        for name, held in claims.items():
            door.put(tenant(name, *(idp(audiences=(audience,)) for audience in held)))
        current = {n: [a for p in r.identity_providers for a in p.audiences]
                   for n, r in door.tenants.items()}  # fmt: skip
        owners = [(name, a) for name, held in current.items() for a in held if a in asked]
        try:
            identity = await door.enter(token("+".join(asked)))
        except InvalidTokenError:
            assert len(owners) != 1
        else:
            assert [identity.tenant.tenant] == [name for name, _ in owners]


@given(st.text(min_size=1), st.text(min_size=1))
def test_names_of_subjects(one: str, other: str) -> None:
    """Valid in a NATS subject whatever the claim holds; different people have different names."""
    subject_token(subject_id("acme", "https://id.example", one))
    same = subject_id("acme", "i", one) == subject_id("acme", "i", other)
    assert same is (one == other)
    assert subject_id("acme", "i", one) != subject_id("globex", "i", one)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["roles", "a", "b"]), _json), st.text(max_size=5))
def test_roles_come_from_the_mapping_only(claims: dict[str, Any], path: str) -> None:
    """Whatever shape a claim has: a role that the mapping gives, or the default."""
    given_role = idp(
        role_claim=f"roles.{path}" if path.isalnum() else "roles", roles={"x": "admin"}
    )
    role = role_of(claims, given_role)
    assert role in {Role.ADMIN, Role.MEMBER}
    assert role is Role.MEMBER or "x" in str(claims)


def test_a_claims_name_may_hold_dots() -> None:
    """The whole name goes before the path."""
    assert claim_at({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    assert claim_at({"a": {"b": 2}}, "a.b") == 2
    assert claim_at({"a": [1]}, "a.b") is None


@pytest.mark.parametrize("exp", [NOON.timestamp(), 1e300, 10**40, float(2**63)])
def test_an_end_is_a_date(exp: float) -> None:
    """Also one that no calendar holds."""
    assert end_of({"exp": exp}, 60) >= NOON


@pytest.mark.parametrize("header", ["Basic abc", "psk_x", "", "Token x"])
def test_other_schemes_are_said(header: str) -> None:
    """The message tells how to send a key."""
    with pytest.raises(AuthenticationError, match="Bearer"):
        bearer(header)


@given(st.text(max_size=200))
async def test_garbage_is_refused_as_such(secret: str) -> None:
    """No text at all makes anything but a refusal, and none is repeated in the answer."""
    door = Door(tenant("acme", idp()), keys=[key()])
    with pytest.raises(PenstockError) as refused:
        await door.authentication.identify(secret)
    assert isinstance(refused.value, AuthenticationError)
    assert len(secret) < 8 or secret not in refused.value.message


async def test_uses_are_told_and_kept() -> None:
    """Latest time per key, in batches; what billing did not hear is told the next time."""
    door = Door(tenant("acme"), keys=[key()])
    await door.enter(SECRET)
    door.clock.time += timedelta(seconds=30)
    await door.enter(SECRET)
    door.desk.away = True
    await door.uses.report()
    assert not door.desk.heard
    door.desk.away = False
    await door.uses.report()
    await door.uses.report()
    (report,) = door.desk.heard
    assert [(use.key_id, use.at) for use in report.uses] == [("key_1", door.clock.time)]
    for n in range(MAX_USES_PER_REPORT + 1):
        door.uses.note(f"key_{n}")
    await door.uses.report()
    assert [len(report.uses) for report in door.desk.heard[1:]] == [MAX_USES_PER_REPORT, 1]


async def test_a_subject_is_no_key() -> None:
    """Billing knows keys only: what subjects do is not reported."""
    door = Door(tenant("acme", idp()))
    await door.enter(token())
    await door.uses.report()
    assert not door.desk.heard


class Mirror(dict[str, Any]):
    """A bucket."""


def revocations(clock: Clock) -> tuple[Revocations, list[Revoked]]:
    told: list[Revoked] = []
    return Revocations(told.append, clock), told


def test_what_ended_while_nobody_listened() -> None:
    """Quiet while the buckets are read; then all that is revoked, suspended and expired."""
    clock = Clock()
    revoking, told = revocations(clock)
    keys: Any = Mirror(a=key("key_a", revoked_at=NOON), b=key("key_b", expires_at=NOON), c=key())
    tenants: Any = Mirror(x=tenant("x", status=TenantStatus.SUSPENDED), y=tenant("y"))
    for record in keys.values():
        revoking.on_key(record)
    for name, record in tenants.items():
        revoking.on_tenant(name, record)
    assert not told
    revoking.begin(keys, tenants)
    assert [set(t.key_ids) for t in told] == [{"key_a"}, {"key_b"}]
    assert [set(t.tenants) for t in told] == [{"x"}, set()]


def test_keys_end_in_their_order() -> None:
    """Each once, when its time has come; one whose end was moved forward ends at the new time."""
    clock = Clock()
    revoking, told = revocations(clock)
    revoking.begin(Mirror(), Mirror())
    for n in (3, 1, 2):
        revoking.on_key(key(f"key_{n}", expires_at=NOON + timedelta(seconds=n)))
    revoking.on_key(key("key_3", expires_at=NOON + timedelta(seconds=1)))
    revoking.sweep()
    assert not told
    clock.time += timedelta(seconds=1)
    revoking.sweep()
    revoking.sweep()
    assert [t.key_ids for t in told] == [{"key_1", "key_3"}]
    clock.time += timedelta(seconds=1)
    revoking.sweep()
    assert told[1].key_ids == {"key_2"}


def test_whom_a_revocation_covers() -> None:
    """A suspension everybody in the tenant, changed providers its subjects, a key its holders."""
    clock = Clock()
    revoking, told = revocations(clock)
    revoking.begin(Mirror(), Mirror())
    revoking.on_tenant("acme", tenant("acme", idp()))
    revoking.on_tenant("acme", tenant("acme", idp(), weight=5))
    assert not told
    revoking.on_tenant("acme", tenant("acme"))
    revoking.on_tenant("globex", tenant("globex", status=TenantStatus.SUSPENDED))
    revoking.on_tenant("initech", None)
    revoking.on_key(key("key_9", revoked_at=NOON))
    people = [("acme", "sub-1"), ("acme", "key_1"), ("globex", "key_2"), ("other", "sub-1"),
              ("initech", "key_3"), ("acme", "key_9")]  # fmt: skip
    covered = [[who for who in people if t.covers(*who)] for t in told]
    assert covered == [[people[0]], [people[2]], [people[4]], [people[5]]]
