"""`penstock billing`: whether the books are right."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.commands import reconcile
from penstock.commands.options import DataDirOption, JsonOption
from penstock.stack_locator import locate_stack

if TYPE_CHECKING:
    from penstock_billing.handlers.rebuild import Rebuilt
    from penstock_billing.ports.rebuild import Difference

_HELP = "See that what is billed is what the event log says."
_REBUILD_HELP = """Do the sums again: read the event log into fresh tables and compare all figures.

Changes nothing that is live; exits with status 1 and prints differences if there are any, up to
1,000 of each kind.
With --replace the log is read again into the live tables instead, by the running service: until
it is done, tenants with quotas are refused. Nothing in the ledger is rewritten: what the old rows
had posted is posted back.

Examples:

  penstock billing rebuild

  penstock billing rebuild --json --wait 60

  penstock billing rebuild --replace
"""

app = typer.Typer(help=_HELP, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command("rebuild", help=_REBUILD_HELP)
def rebuild(
    replace: Annotated[
        bool, typer.Option("--replace", help="Read the log again into the live tables.")
    ] = False,
    wait_s: Annotated[
        float,
        typer.Option("--wait", min=0, metavar="SECONDS", help="How long billing may lag behind."),
    ] = 30.0,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare, or read again."""
    from penstock import rebuild_desk  # noqa: PLC0415 - loads the clients of both servers

    stack = locate_stack(data_dir, os.environ)
    if replace:
        until_seq = rebuild_desk.replace(stack)
        typer.echo(
            json.dumps({"reading_until_seq": until_seq})
            if as_json
            else f"The event log is being read again, up to {until_seq}. To see that it is done "
            "and right: penstock billing rebuild"
        )
        return
    with _progress(enabled=not as_json) as progress:
        rebuilt = rebuild_desk.rebuild(stack, wait_s, progress)
    _report(rebuilt, as_json=as_json)
    if rebuilt.differences:
        raise typer.Exit(1)


def register(parent: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("reconcile", help=reconcile.HELP)(reconcile.reconcile)
    parent.add_typer(app, name="billing")


def _report(rebuilt: "Rebuilt", *, as_json: bool) -> None:
    document = {
        "same": not rebuilt.differences,
        "first_seq": rebuilt.span.first_seq,
        "until_seq": rebuilt.span.until_seq,
        "attempts": rebuilt.attempts,
        "unfit": rebuilt.unfit,
        "differences": [asdict(difference) for difference in rebuilt.differences],
    }
    if as_json:
        typer.echo(json.dumps(document))
        return
    for difference in rebuilt.differences:
        typer.echo(_line(difference))
    typer.echo(
        f"Event log {rebuilt.span.first_seq} to {rebuilt.span.until_seq}: "
        f"{rebuilt.attempts:,} attempts, {rebuilt.unfit:,} facts that are no usage."
    )
    if rebuilt.span.first_seq > 1:
        typer.echo("What was used before the log's beginning could not be compared.")
    if rebuilt.differences:
        typer.secho(f"{len(rebuilt.differences):,} differences", fg=typer.colors.RED, bold=True)
    else:
        typer.secho("identical", fg=typer.colors.GREEN, bold=True)


def _line(difference: "Difference") -> str:
    """Where it is, and what differs there: `live -> rebuilt`."""
    live, rebuilt = difference.live or {}, difference.rebuilt or {}
    changes = [
        f"{name} {_shown(live, name)} -> {_shown(rebuilt, name)}"
        for name in {**live, **rebuilt}
        if live.get(name) != rebuilt.get(name)
    ]
    place = " ".join(str(value) for value in difference.place.values())
    return f"{difference.figure}  {place}:  {', '.join(changes)}"


def _shown(figures: Mapping[str, Any], name: str) -> str:
    return str(figures.get(name, "nothing"))


@contextmanager
def _progress(*, enabled: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal; nothing where nobody looks."""
    from rich import progress as bars  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415 - loads rich

    console = Console(stderr=True)
    if not (enabled and console.is_terminal):
        yield lambda _done, _total: None
        return
    columns = (bars.BarColumn(), bars.MofNCompleteColumn(), bars.TimeRemainingColumn())
    with bars.Progress("Reading", *columns, console=console, transient=True) as bar:
        task = bar.add_task("events", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
