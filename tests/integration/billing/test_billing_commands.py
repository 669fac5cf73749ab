"""`penstock tenants`, `keys` and `usage`, run as an operator runs them."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
from tests.support.billing import Operator, StartBilling, terminal

from penstock_shared.contracts.accounts import looks_like_api_key


class Terminal:
    """Runs the `penstock` command against the stack of the test."""

    def __init__(self, nats_url: str) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
        self._env = {**kept, "PENSTOCK_NATS_URL": nats_url}

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "penstock",
            *arguments,
            env=self._env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()


async def test_an_operators_day(
    start_billing: StartBilling, operator: Operator, nats_url: str
) -> None:
    """Tenant, key, usage, revocation; the secret stands alone on standard output."""
    terminal_ = Terminal(nats_url)
    async with start_billing():
        status, out, _ = await terminal_.run("tenants", "create", "acme", "--name", "[b]Acme")
        assert status == 0
        assert "penstock keys create acme" in out
        status, secret, warning = await terminal_.run("keys", "create", "acme", "--name", "ci")
        assert status == 0
        assert looks_like_api_key(secret.strip())
        assert "only time" in warning
        gold = ("tenants", "create", "gold", "--name", "Gold", "--weight", "4", "--json")
        _, out, _ = await terminal_.run(*gold)
        assert json.loads(out)["weight"] == 4
        _, out, _ = await terminal_.run("tenants", "list")
        assert "[b]Acme" in out
        await operator.publish(terminal(tokens=(1000, 489)))
        await operator.caught_up()
        _, out, _ = await terminal_.run("usage")
        assert "$0.001234" in out
        _, out, _ = await terminal_.run("usage", "--tenant", "acme", "--json")
        assert json.loads(out)["rows"][0]["cost_microusd"] == 1234
        _, out, _ = await terminal_.run("keys", "list", "--json")
        (key,) = json.loads(out)["keys"]
        status, out, _ = await terminal_.run("keys", "revoke", key["key_id"])
        assert status == 0
        assert "is revoked" in out
        _, out, _ = await terminal_.run("keys", "list", "--tenant", "acme")
        assert "revoked 20" in out
        assert secret.strip() not in out


async def test_a_keys_life(start_billing: StartBilling, nats_url: str) -> None:
    """Made with role and end, rotated with an overlap, listed with all of it."""
    terminal_ = Terminal(nats_url)
    async with start_billing():
        await terminal_.run("tenants", "create", "acme", "--name", "Acme")
        wish = ("keys", "create", "acme", "--name", "ci", "--role", "read-only")
        _, out, _ = await terminal_.run(*wish, "--expires-in", "90d", "--json")
        key = json.loads(out)["key"]
        assert (key["role"], key["lifetime_s"]) == ("read-only", 90 * 86_400)
        status, secret, warning = await terminal_.run(
            "keys", "rotate", key["key_id"], "--overlap", "30m"
        )
        assert status == 0
        assert looks_like_api_key(secret.strip())
        assert "only time" in warning
        _, out, _ = await terminal_.run("keys", "list", "--json")
        old, new = json.loads(out)["keys"]
        assert old["expires_at"] < new["expires_at"]
        assert (new["role"], new["last_used_at"]) == ("read-only", None)
        _, out, _ = await terminal_.run("keys", "list")
        for column in ("ROLE", "EXPIRES", "LAST USED"):
            assert column in out
        assert out.count("read-only") == 2
        assert old["expires_at"][:10] in out


async def test_a_tenants_terms(start_billing: StartBilling, nats_url: str, tmp_path: Path) -> None:
    """Limits are set and lifted, providers come from a file, a suspension shows in the list."""
    providers = tmp_path / "providers.json"
    given = {"issuer": "https://id.example", "audiences": ["p"], "default_role": "member"}
    providers.write_text(json.dumps([given]))
    terminal_ = Terminal(nats_url)
    update = ("tenants", "update", "acme")
    async with start_billing():
        made = ("tenants", "create", "acme", "--name", "Acme", "--tokens-per-minute", "12345")
        _, out, _ = await terminal_.run(*made, "--json")
        assert json.loads(out)["tokens_per_minute"] == 12_345
        _, out, _ = await terminal_.run(*update, "--identity-providers", str(providers), "--json")
        assert json.loads(out)["identity_providers"][0]["algorithms"] == ["RS256", "ES256"]
        terms = ("--tokens-per-minute", "0", "--status", "suspended")
        _, out, _ = await terminal_.run(*update, *terms, "--json")
        record = json.loads(out)
        assert (record["tokens_per_minute"], record["status"]) == (None, "suspended")
        assert len(record["identity_providers"]) == 1
        _, out, _ = await terminal_.run("tenants", "list")
        assert "suspended" in out
        assert "TOKENS/MIN" in out
        status, out, _ = await terminal_.run(*update, "--status", "active")
        assert (status, "it is active" in out) == (0, True)


async def test_refusals_are_sentences(start_billing: StartBilling, nats_url: str) -> None:
    """What cannot be done ends with status 1, what was wrong and the next step; no traceback."""
    terminal_ = Terminal(nats_url)
    cases = {
        "no valid tenant": ("tenants", "create", "Not A Name", "--name", "x"),
        "platform's own name": ("tenants", "create", "platform", "--name", "x"),
        "no tenant 'nobody'": ("keys", "create", "nobody", "--name", "x"),
        "no key 'key_0'": ("keys", "revoke", "key_0"),
        "no duration": ("keys", "rotate", "key_0", "--overlap", "soon"),
        "no valid expires in s": ("keys", "create", "acme", "--name", "x", "--expires-in", "1s"),
        "Nothing to change": ("tenants", "update", "acme"),
        "cannot be read as JSON": (
            "tenants",
            "update",
            "acme",
            "--identity-providers",
            "/dev/null",
        ),
    }
    async with start_billing():
        for sentence, arguments in cases.items():
            status, out, err = await terminal_.run(*arguments)
            assert status == 1
            assert sentence in err
            assert "--help" in err or "error code" in err
            assert "Traceback" not in err
            assert not out


async def test_nobody_there(nats_url: str) -> None:
    """Without billing, and without a bus, the command says so and what to do."""
    status, _, err = await Terminal(nats_url).run("usage")
    assert status == 1
    assert "No service answers" in err
    status, _, err = await Terminal("nats://127.0.0.1:1").run("usage")
    assert status == 1
    assert "cannot be reached" in err


async def test_an_operator_sets_and_lifts_quotas(
    start_billing: StartBilling, operator: Operator, nats_url: str
) -> None:
    """Each of them by itself; what was used before counts, and what is no quota changes nothing."""
    terminal_ = Terminal(nats_url)
    now = datetime.now(UTC)
    async with start_billing():
        await operator.publish(terminal(tokens=(1000, 489), routed_at=now))
        await operator.caught_up()
        create = ("tenants", "create", "acme", "--name", "Acme", "--quota", "tokens/day=5000")
        _, out, _ = await terminal_.run(*create, "--json")
        assert json.loads(out)["quotas"] == [{"unit": "tokens", "period": "day", "limit": 5000}]
        more = ("--quota", "tokens/day=9000", "--quota", "microusd/month=1000000")
        _, out, _ = await terminal_.run("tenants", "update", "acme", *more, "--json")
        assert [quota["limit"] for quota in json.loads(out)["quotas"]] == [1_000_000, 9000]
        _, out, _ = await terminal_.run("quotas", "show", "acme", "--json")
        dear, many = json.loads(out)["quotas"]
        assert (many["settled"], many["reserved"], many["left"]) == (1489, 0, 7511)
        assert (dear["unit"], dear["settled"], dear["left"]) == ("microusd", 1234, 998_766)
        _, out, _ = await terminal_.run("quotas", "show")
        assert "tokens/day" in out
        assert "7,511" in out
        _, out, _ = await terminal_.run(
            "tenants", "update", "acme", "--no-quota", "tokens/day", "--json"
        )
        assert [quota["unit"] for quota in json.loads(out)["quotas"]] == ["microusd"]
        for odd in ("tokens/day", "tokens/week=1", "tokens=1", "tokens/day=-1", "tokens/day=x"):
            status, _, err = await terminal_.run("tenants", "update", "acme", "--quota", odd)
            assert status == 1
            assert "is no quota" in err
        _, out, _ = await terminal_.run("quotas", "show", "--json")
        assert len(json.loads(out)["quotas"]) == 1


async def test_usage_over_time(
    start_billing: StartBilling, operator: Operator, nats_url: str, tmp_path: Path
) -> None:
    """A chart by day; the export's rows are the facts' sums, for all tenants and for one."""
    terminal_ = Terminal(nats_url)
    today = datetime.now(UTC)
    async with start_billing():
        for tenant, tokens in (("acme", (1000, 489)), ("acme", (10, 20)), ("globex", (7, 3))):
            await operator.publish(terminal(tenant=tenant, tokens=tokens, routed_at=today))
        await operator.caught_up()
        _, out, _ = await terminal_.run("usage", "--days", "2")
        drawn = next(line for line in out.splitlines() if line.startswith(f"{today:%Y-%m-%d}"))
        assert "█" in drawn
        assert drawn.split()[-2:] == ["3", "$0.001277"]
        status, out, _ = await terminal_.run("usage", "export", "--by", "tenant", "--by", "user_id")
        assert status == 0
        rows = {row["tenant"]: row for row in csv.DictReader(io.StringIO(out))}
        assert [(name, row["user_id"]) for name, row in rows.items()] == [
            ("acme", "somebody"),
            ("globex", "somebody"),
        ]
        assert (rows["acme"]["requests"], rows["acme"]["cost_microusd"]) == ("2", "1269")
        path = tmp_path / "acme.parquet"
        asked = ("--tenant", "acme", "--bucket", "1m", "--format", "parquet", "-o", str(path))
        status, _, _ = await terminal_.run("usage", "export", *asked)
        assert status == 0
        (row,) = pq.read_table(path).to_pylist()
        assert (row["tenant"], row["output_tokens"]) == ("acme", 509)
        for wrong in (
            ("--from", "2026-02-30"),
            ("--from", "2026-02-02", "--before", "2026-02-01"),
            ("--bucket", "1h", "--by", "user_id"),
        ):
            status, _, err = await terminal_.run("usage", "export", *wrong)
            assert (status, "Traceback" in err) == (1, False), err
