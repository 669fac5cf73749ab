"""A tenant's admin manages the tenant's keys over HTTP; billing and Postgres are real (I8)."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import openai
import pytest
from tests.support.office import Office, until_status

from penstock_shared.contracts.account_commands import (
    KeyList,
    ListKeys,
)
from penstock_shared.contracts.accounts import Role, looks_like_api_key


async def test_an_admins_day(office: Office) -> None:
    """Made, used, rotated, listed, deleted; the secret is shown when it is made and never again."""
    async with office.http() as admin:
        wish = {"name": "ci", "role": "read-only", "expires_in_seconds": 3600}
        made = (await admin.post("api_keys", json=wish)).json()
        assert looks_like_api_key(made["value"])
        assert (made["object"], made["role"], made["name"]) == ("api_key", "read-only", "ci")
        assert made["expires_at"] - made["created_at"] == 3600
        async with office.edge.http(made["value"]) as user:
            await until_status(user, 200)
        path = f"api_keys/{made['id']}"
        next_one = (await admin.post(f"{path}/rotate", json={"overlap_seconds": 60})).json()
        assert (next_one["name"], next_one["role"]) == ("ci", "read-only")
        assert next_one["value"] != made["value"]
        page = (await admin.get("api_keys")).json()
        listed = {key["id"]: key for key in page["data"]}
        assert listed[made["id"]]["expires_at"] - next_one["created_at"] in {59, 60, 61}
        assert not [key for key in page["data"] if "value" in key]
        assert made["value"] not in str(page)
        gone = (await admin.delete(path)).json()
        assert gone == {"id": made["id"], "object": "api_key.deleted", "deleted": True}
        async with office.edge.http(made["value"]) as user:
            await until_status(user, 401)
        async with office.edge.http(next_one["value"]) as user:
            await until_status(user, 200)


async def test_pages(office: Office) -> None:
    """`after` and `limit`, as in the vendor's lists."""
    async with office.http() as admin:
        first = (await admin.get("api_keys?limit=2")).json()
        assert (len(first["data"]), first["has_more"]) == (2, True)
        rest = (await admin.get(f"api_keys?limit=2&after={first['last_id']}")).json()
        assert (rest["first_id"], rest["has_more"]) == (rest["data"][0]["id"], False)
        names = [key["name"] for key in (*first["data"], *rest["data"])]
        assert names == [role.value for role in Role]


@pytest.mark.parametrize("role", [Role.MEMBER, Role.READ_ONLY])
async def test_only_admins(office: Office, role: Role) -> None:
    """Others are refused on every path, and nothing has happened."""
    async with office.http() as admin, office.http(role) as client:
        before = (await admin.get("api_keys")).json()["data"]
        victim = before[0]["id"]
        answers = [
            await client.get("api_keys"),
            await client.post("api_keys", json={"name": "mine", "role": "admin"}),
            await client.post(f"api_keys/{victim}/rotate"),
            await client.delete(f"api_keys/{victim}"),
        ]
        codes = {(a.status_code, a.json()["error"]["code"]) for a in answers}
        assert codes == {(403, "insufficient_permissions")}
        assert (await admin.get("api_keys")).json()["data"] == before


async def test_another_tenants_keys(office: Office) -> None:
    """A foreign key's id and one that does not exist get the same answer, and no list shows it."""
    other = Office(office.edge, office.operator, f"{office.tenant}x")
    await other.hire()
    async with office.http() as admin, other.http() as theirs:
        victims = (await theirs.get("api_keys")).json()["data"]
        mine = (await admin.get("api_keys")).json()["data"]
        assert not {key["id"] for key in victims} & {key["id"] for key in mine}
        victim = victims[0]["id"]
        for method, tail in (("POST", "/rotate"), ("DELETE", "")):
            told = []
            for key_id in (victim, "key_0", "a.b", ">", "%00", "x" * 300):
                answer = await admin.request(method, f"api_keys/{key_id}{tail}")
                assert (answer.status_code, answer.json()["error"]["code"]) == (
                    404,
                    "key_not_found",
                )
                told.append(answer.json()["error"]["message"].replace(key_id, "key_0"))
            assert told[0] == told[1]
        for after in (victim, "key_0"):
            assert (await admin.get(f"api_keys?after={after}")).json()["data"] == []
        assert (await theirs.get("api_keys")).json()["data"] == victims


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "name"), ({"name": ""}, "name"), ({"name": "a\x00"}, "name"), ({"name": 7}, "name"),
     ({"name": "x", "role": "root"}, "role"), ({"name": "x", "tenant": "globex"}, "tenant"),
     ({"name": "x", "by": "key_1"}, "by"),
     ({"name": "x", "expires_in_seconds": 1}, "expires_in_seconds"),
     ([], None), ("x", None)],
)  # fmt: skip
async def test_bodies_that_are_wrong(office: Office, body: Any, param: str | None) -> None:
    """400 that names the field; a tenant cannot be named at all (I8)."""
    async with office.http() as admin:
        answer = await admin.post("api_keys", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
        assert (await admin.get("api_keys?limit=0")).status_code == 400
        assert (await admin.get("api_keys?tenant=globex")).status_code == 400


async def test_last_uses_reach_billing(office: Office) -> None:
    """At the latest when the instance leaves; the keys that nobody used have none."""
    async with office.http(Role.MEMBER) as client:
        await client.get("models")
    await office.edge.app.stop()
    query = ListKeys(tenant=office.tenant)
    answer = await office.operator.command("list-keys", query)
    used = {key.role: key.last_used_at for key in KeyList.model_validate_json(answer).keys}
    assert used[Role.MEMBER] is not None
    assert used[Role.READ_ONLY] is not None  # the fixture looked with it
    assert used[Role.ADMIN] is None


async def test_billing_is_away(office: Office, billing: AsyncExitStack) -> None:
    """503 and no half-truth; keys that exist go on working from memory."""
    await billing.aclose()
    async with office.http() as admin:
        answer = await admin.get("api_keys")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "accounts_unavailable")
        assert "retry-after" in answer.headers
        assert (await admin.get("models")).status_code == 200


async def test_read_only_reads(office: Office) -> None:
    """GET and nothing else, for the SDK too."""
    client = office.edge.client(office.secrets[Role.READ_ONLY])
    assert [model.id async for model in client.models.list()]
    with pytest.raises(openai.PermissionDeniedError):
        await client.responses.create(model="echo", input="hello")
    async with office.http(Role.MEMBER) as member, office.http(Role.READ_ONLY) as reader:
        body = {"model": "echo", "input": "hello"}
        made = (await member.post("responses", json=body)).json()["id"]
        assert (await reader.get(f"responses/{made}")).status_code == 200
        for answer in (
            await reader.post(f"responses/{made}/cancel"),
            await reader.delete(f"responses/{made}"),
            await reader.post("chat/completions", json={"model": "echo", "messages": []}),
            await reader.post("embeddings", json={"model": "echo", "input": "x"}),
        ):
            assert answer.status_code == 403
            assert answer.json()["error"]["code"] == "insufficient_permissions"
