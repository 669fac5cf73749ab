"""`penstock credits` and soft quotas, run as an operator runs them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from tests.integration.billing.test_billing_commands import Terminal
from tests.support.billing import StartBilling


async def test_credit_is_granted_listed_and_corrected(
    start_billing: StartBilling, nats_url: str
) -> None:
    """In dollars, to the micro-dollar; once by its reference; what is wrong is a sentence."""
    terminal = Terminal(nats_url)
    today = datetime.now(UTC).date()
    async with start_billing():
        await terminal.run("tenants", "create", "acme", "--name", "Acme")
        grant = ("credits", "grant", "acme", "12.5", "--reference", "order-17")
        status, out, _ = await terminal.run(*grant)
        assert (status, "acme has $12.500000 of credit, without end" in out) == (0, True)
        gift = ("credits", "grant", "acme", "0.000125", "--promotional", "--priority", "1")
        _, out, _ = await terminal.run(*gift, "--expires-on", f"{today}", "--json")
        assert json.loads(out)["microusd"] == 125
        _, out, _ = await terminal.run("credits", "list", "acme")
        assert out.index("promotional") < out.index("prepaid")
        assert "order-17" in out
        adjust = ("credits", "adjust", "acme", "-1.25", "--reason", "outage")
        status, out, _ = await terminal.run(*adjust, "--reference", "case-9")
        assert (status, out.strip()) == (
            0,
            f"-$1.250000 will be on acme's invoice of {today:%Y-%m}.",
        )
        for wrong, sentence in (
            (("credits", "grant", "acme", "0.0000001"), "no amount in dollars"),
            (("credits", "grant", "acme", "inf"), "no amount in dollars"),
            (("credits", "grant", "acme", "1e99999999"), "no amount in dollars"),
            ((*grant[:3], "13", *grant[4:]), "stands for another act"),
        ):
            status, _, error = await terminal.run(*wrong)
            assert status == 1
            assert sentence in " ".join(error.split())


async def test_a_soft_quota_stands_beside_a_hard_one(
    start_billing: StartBilling, nats_url: str
) -> None:
    """Each is set and lifted by its name."""
    terminal = Terminal(nats_url)
    async with start_billing():
        both = ("--quota", "tokens/day=9", "--quota", "soft:tokens/day=5")
        await terminal.run("tenants", "create", "acme", "--name", "Acme", *both)
        _, out, _ = await terminal.run("quotas", "show", "acme", "--json")
        assert [(q["limit"], q.get("soft", False)) for q in json.loads(out)["quotas"]] == [
            (9, False),
            (5, True),
        ]
        await terminal.run("tenants", "update", "acme", "--no-quota", "tokens/day")
        _, out, _ = await terminal.run("quotas", "show", "acme")
        assert "soft:tokens/day" in out
        assert out.count("tokens/day") == 1
