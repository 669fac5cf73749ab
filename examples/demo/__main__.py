"""Runs the demo; exits non-zero and says what is missing when anything is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
from examples.demo.clients import (
    Answer,
    AnswerError,
    in_background,
    judged,
    over_broken_socket,
    over_chat,
    over_nats,
    over_sse,
    over_websocket,
)
from examples.demo.messages import CHECKED, JUDGED, MESSAGES, TRANSLATED, TRANSLATOR, Door, Message
from openai import AsyncOpenAI
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from penstock_shared.contracts.usage import Price, Usage, cost_microusd

START_TIMEOUT_S: Final = 90.0
SETTLE_TIMEOUT_S: Final = 20.0
TRANSLATOR_FILES: Final = Path("tests/data/translator")
PLAN: Final = {
    "title": "Starter",
    "fee_microusd": 9_000_000,
    "included_microusd": 60,
    "quotas": [{"unit": "requests", "period": "day", "limit": 10_000}],
}
# A pipe has no width of its own: wide enough that no figure is cut.
console: Final = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


class DemoError(Exception):
    """Something is missing; the message says what."""


@contextlib.contextmanager
def running_stack(data_dir: Path) -> Iterator[dict[str, Any]]:
    """`penstock up` on a fresh directory; drained at the end, and that must succeed as well."""
    ready_file = data_dir / "ready.json"
    command = [sys.executable, "-m", "penstock", "up", "--port", "0"]
    command += ["--data-dir", str(data_dir / "data"), "--ready-file", str(ready_file)]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        with console.status("Starting nats-server, PostgreSQL, Redis and five services …"):
            started_s = time.monotonic()
            while not ready_file.exists():
                if process.poll() is not None:
                    msg = f"the stack did not start (exit {process.returncode})"
                    raise DemoError(msg)
                if time.monotonic() - started_s > START_TIMEOUT_S:
                    msg = f"the stack was not ready within {START_TIMEOUT_S:.0f} s"
                    raise DemoError(msg)
                time.sleep(0.05)
        console.print(f"[green]Ready[/green] after {time.monotonic() - started_s:.1f} s.\n")
        yield json.loads(ready_file.read_text())
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(40)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            status = process.wait(5)
    if status != 0:
        msg = f"the stack did not stop cleanly (exit {status})"
        raise DemoError(msg)


async def ask_everything(ready: dict[str, Any], messages: Sequence[Message]) -> list[Answer]:
    """Send every message, one after the other, and print the answers as they stream."""
    base = ready["http"] + "/v1"
    client = AsyncOpenAI(
        base_url=base,
        websocket_base_url=base.replace("http", "ws", 1),
        api_key=ready["api_key"],
        max_retries=0,
        timeout=60,
    )

    def show(text: str) -> None:
        console.print(text, end="", markup=False, style="cyan", soft_wrap=True)

    doors: dict[Door, Callable[[Message], Awaitable[Answer]]] = {
        Door.WEBSOCKET: lambda message: over_websocket(client, message, show),
        Door.SSE: lambda message: over_sse(client, message, show),
        Door.CHAT: lambda message: over_chat(client, message, show),
        Door.BROKEN: lambda message: over_broken_socket(base, ready["api_key"], message, show),
        Door.BACKGROUND: lambda message: in_background(client, message, show),
        Door.JUDGED: lambda message: judged(client, message, show),
        Door.NATS: lambda message: over_nats(
            ready["nats"], ready["tenant"], ready["api_key"], message, show
        ),
    }
    answers = []
    for message in messages:
        console.print(f"[bold]{message.door}[/bold] {message.text}", soft_wrap=True)
        try:
            answers.append(await doors[message.door](message))
        except AnswerError as error:
            msg = f"{message.door}: {message.text[:40]!r} was not answered: {error}"
            raise DemoError(msg) from error
        console.print("\n")
    await client.close()
    return answers


def told(data_dir: Path, *arguments: str) -> str:
    """What an operator command says."""
    command = [sys.executable, "-m", "penstock", *arguments]
    command += ["--data-dir", str(data_dir / "data")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        msg = f"'penstock {' '.join(arguments)}' failed: {done.stderr.strip()}"
        raise DemoError(msg)
    return done.stdout


def operator(data_dir: Path, *arguments: str) -> Any:
    """What an operator command says with `--json`."""
    return json.loads(told(data_dir, *arguments, "--json"))


def settled_usage(data_dir: Path, tenant: str, answers: list[Answer]) -> list[dict[str, Any]]:
    """Wait until billing has counted every answer; then it must be exactly what clients saw."""
    deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
    while True:
        rows: list[dict[str, Any]] = operator(data_dir, "usage", "--tenant", tenant)["rows"]
        if sum(row["requests"] for row in rows) >= len(answers):
            break
        if time.monotonic() > deadline_s:
            msg = f"billing counted {sum(r['requests'] for r in rows)} of {len(answers)} requests"
            raise DemoError(msg)
        time.sleep(0.1)
    for name in ("input_tokens", "output_tokens"):
        seen, billed = sum(getattr(a, name) for a in answers), sum(r[name] for r in rows)
        if seen != billed:
            msg = f"{name}: clients saw {seen}, billing counted {billed}"
            raise DemoError(msg)
    return rows


def add_translator(data_dir: Path, ready: dict[str, Any]) -> None:
    """Register a model while everything runs, and wait until clients can choose it."""
    arguments = [str(TRANSLATOR_FILES), "--name", TRANSLATOR, "--context-tokens", "128"]
    arguments += ["--price-input", "10", "--price-output", "40"]
    console.print(f"[bold]penstock models add[/bold] {' '.join(arguments)}\n")
    operator(data_dir, "models", "add", *arguments)
    deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
    while TRANSLATOR not in prices_of(ready):
        if time.monotonic() > deadline_s:
            msg = f"{TRANSLATOR} was added and nobody sees it"
            raise DemoError(msg)
        time.sleep(0.1)


def print_decision(data_dir: Path, answer: Answer) -> None:
    """Why the judged message went where it went."""
    console.print(f"[bold]penstock router explain[/bold] {answer.response_id}\n")
    explained = told(data_dir, "router", "explain", answer.response_id)
    console.print(explained, markup=False, soft_wrap=True)


def print_models(listed: dict[str, Any]) -> None:
    """What the worker has loaded, and in which layout each model runs best on this machine."""
    table = Table(title="Models as the worker has them", box=SIMPLE, pad_edge=False)
    for column in ("model", "state", "memory", "batches, threads, items", "tokens/s when tuned"):
        table.add_column(column, justify="left" if column in {"model", "state"} else "right")
    for model in (model for worker in listed["workers"] for model in worker["models"]):
        layout = model["layout"] or {}
        shape = " x ".join(str(layout.get(k, "?")) for k in ("slots", "threads", "max_batch"))
        speed = layout.get("tokens_per_s")
        table.add_row(
            f"{model['name']} {model['version']}",
            model["state"],
            f"{model['memory_bytes'] / 1e6:.0f} MB",
            shape,
            f"{speed:,.0f}" if speed else "",
        )
    console.print(table)


def print_answers(answers: list[Answer], prices: dict[str, Price]) -> None:
    """The table of what was asked and what it took."""
    table = Table(title="Answers", box=SIMPLE, pad_edge=False)
    for column in ("message", "via", "model"):
        table.add_column(column, no_wrap=True)
    for column in ("in", "out", "first", "total", "cost"):
        table.add_column(column, justify="right", no_wrap=True)
    for a in answers:
        used = Usage(input_tokens=a.input_tokens, output_tokens=a.output_tokens)
        cost = cost_microusd(used, prices[a.model])
        table.add_row(
            textwrap.shorten(a.message.text, 24, placeholder="…"),
            a.message.door,
            a.model,
            str(a.input_tokens),
            str(a.output_tokens),
            f"{a.first_token_s * 1000:.0f} ms",
            f"{a.total_s * 1000:.0f} ms",
            f"${cost / 1e6:.6f}",
        )
    console.print(table)


def print_usage(rows: list[dict[str, Any]]) -> None:
    """The bill."""
    table = Table(title="Usage as billing counted it", box=SIMPLE, pad_edge=False)
    for column in ("tenant", "model", "requests", "input tokens", "output tokens", "cost"):
        table.add_column(column, justify="left" if column in {"tenant", "model"} else "right")
    for row in rows:
        numbers = [str(row[k]) for k in ("requests", "input_tokens", "output_tokens")]
        table.add_row(row["tenant"], row["model"], *numbers, f"${row['cost_microusd'] / 1e6:.6f}")
    console.print(table)


def print_invoice(data_dir: Path, tenant: str, rows: list[dict[str, Any]]) -> None:
    """Give the tenant a plan and credit; what the month would come to now, line by line."""
    plan = data_dir / "plan.json"
    plan.write_text(json.dumps(PLAN))
    for act in (
        ("plans", "publish", "starter", str(plan)),
        ("plans", "assign", tenant, "starter"),
        ("credits", "grant", tenant, "0.001", "--promotional", "--reference", "welcome"),
    ):
        console.print(f"[bold]penstock {act[0]} {act[1]}[/bold] {' '.join(act[2:])}")
        operator(data_dir, *act)
    metered = operator(data_dir, "invoice", "preview", tenant)["usage_microusd"]
    billed = sum(row["cost_microusd"] for row in rows)
    if metered != billed:
        msg = f"the usage is {billed} micro-dollars, and the invoice says {metered}"
        raise DemoError(msg)
    console.print(f"[bold]penstock invoice preview[/bold] {tenant}\n")
    console.print(told(data_dir, "invoice", "preview", tenant), markup=False, soft_wrap=True)


def require_agreement(data_dir: Path) -> None:
    """Event log, usage rows, sums, ledger and invoices say the same; so does the log read again."""
    for check in ("reconcile", "rebuild"):
        console.print(f"[bold]penstock billing {check}[/bold]\n")
        console.print(told(data_dir, "billing", check), markup=False, soft_wrap=True)


def prices_of(ready: dict[str, Any]) -> dict[str, Price]:
    """Model prices, as `GET /v1/models` states them."""
    headers = {"Authorization": f"Bearer {ready['api_key']}"}
    listed = httpx.get(ready["http"] + "/v1/models", headers=headers, timeout=10).json()
    return {m["id"]: Price(**m["price"]) for m in listed["data"] if "price" in m}  # `auto` has none


def main() -> int:
    """The whole demo."""
    try:
        with tempfile.TemporaryDirectory(prefix="penstock-demo-") as directory:
            place = Path(directory)
            with running_stack(place) as ready:
                answers = asyncio.run(ask_everything(ready, (*MESSAGES, CHECKED, JUDGED)))
                add_translator(place, ready)
                answers += asyncio.run(ask_everything(ready, (TRANSLATED,)))
                print_answers(answers, prices_of(ready))
                print_decision(place, answers[-2])
                print_models(operator(place, "models", "list"))
                rows = settled_usage(place, ready["tenant"], answers)
                print_usage(rows)
                print_invoice(place, ready["tenant"], rows)
                require_agreement(place)
                proof = operator(place, "audit", "verify", "--against-events")
                console.print_json(json.dumps(proof))
    except DemoError as error:
        console.print(f"\n[bold red]The demo failed:[/bold red] {error}", soft_wrap=True)
        return 1
    console.print(
        "[green]Every answer arrived, was billed once, adds up, and is in the audit log.[/green]"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
