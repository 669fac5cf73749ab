"""What people see in the terminal; colours and tables only where there is one."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from penstock.errors import OperatorError
from penstock.run_file import ReadyFile
from penstock_shared.contracts.subjects import inbox_prefix, submit

# Nothing is cut off for a program that reads along.
_PIPED_WIDTH = 250
_STATE_STYLES = {"ready": "green", "starting": "yellow", "backing_off": "red", "dead": "red"}


def show_ready(ready: ReadyFile) -> None:
    """Say where the stack is, and how to try it in three ways."""
    console = Console(highlight=False, soft_wrap=True)
    console.print("\n[bold]Penstock is up.[/bold] Ctrl-C stops it.\n")
    for name, value in _facts(ready).items():
        console.print(f"  {name:<9} [cyan]{value}[/cyan]")
    if ready.api_key:
        console.print("\nTry it:\n")
        for line in try_lines(ready):
            console.print(f"  {line}\n", markup=False)


def try_lines(ready: ReadyFile) -> tuple[str, str, str]:
    """Write three commands that can be copied: HTTP, the OpenAI SDK, NATS."""
    base = f"{ready.http}/v1"
    body = '{"model": "auto", "input": "Hello"}'
    curl = (
        f"curl {base}/responses -H 'Authorization: Bearer {ready.api_key}'"
        f" -H 'Content-Type: application/json' -d '{body}'"
    )
    python = (
        f"python -c \"import openai; print(openai.OpenAI(base_url='{base}',"
        f" api_key='{ready.api_key}').responses.create(model='auto', input='Hello').output_text)\""
    )
    nats = (
        f"nats --server {ready.nats.partition(',')[0]} --user {ready.api_key}"
        f" --inbox-prefix {inbox_prefix(ready.tenant)} request {submit(ready.tenant)} '{body}'"
        " -H ce-specversion:1.0 -H ce-id:hello-1 -H ce-source:/me"
        " -H ce-type:penstock.request.submit.v1"
    )
    return curl, python, nats


def show_processes(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print the table of `penstock ps`."""
    table = Table("NAME", "PID", "STATE", "RESTARTS", "PORTS", box=None, pad_edge=False)
    for row in rows:
        style = _STATE_STYLES.get(row["state"], "")
        state = f"[{style}]{row['state']}[/{style}]" if style else row["state"]
        ports = " ".join(f"{name}:{port}" for name, port in row["ports"].items())
        table.add_row(row["name"], str(row["pid"] or "-"), state, str(row["restarts"]), ports)
    Console(highlight=False).print(table)


def show_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[str] = ()
) -> None:
    """Print rows under their columns; those named in `right` hold numbers.

    Cells are shown as they are: a name that looks like markup stays a name.
    """
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _PIPED_WIDTH)
    console.print(table, crop=False)


def show_error(error: OperatorError) -> None:
    """Print what is wrong and what to do, on standard error."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(error.message, style="bold red", markup=False)
    console.print(error.hint, markup=False)


def echo_log_line(name: str, line: str) -> None:
    """Print one line of a process's log on standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"{name:>10} | {line}", markup=False
    )


def _facts(ready: ReadyFile) -> dict[str, str]:
    facts = {"HTTP": f"{ready.http}/v1", "NATS": ready.nats, "Tenant": ready.tenant}
    if ready.api_key:
        facts["API key"] = ready.api_key
    return facts


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show bytes done of bytes in all, on a terminal; a program that reads along sees nothing."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("")
        yield lambda step, done, total: bar.update(
            task, description=step, completed=done, total=total or None
        )
