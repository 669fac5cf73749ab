"""`penstock ps`: the processes of a running stack."""

import json
import os
from typing import Any

import typer

from penstock.commands.options import DataDirOption, JsonOption
from penstock.run_file import ProcessRecord, RunFile, is_alive
from penstock.stack_locator import locate_run_file

_HELP = """List the processes of a running stack.

Examples:

  penstock ps

  penstock ps --json --data-dir ./data
"""


def ps(data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """Print name, pid, state, restarts and ports; fail when no stack runs."""
    _, run = locate_run_file(data_dir, os.environ)
    rows = [_row(entry) for entry in run.processes]
    if as_json:
        typer.echo(json.dumps(_document(run, rows)))
        return
    from penstock.presentation import show_processes  # noqa: PLC0415 - loads rich

    show_processes(rows)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("ps", help=_HELP)(ps)


def _row(entry: ProcessRecord) -> dict[str, Any]:
    """Describe a process; one that died a moment ago is `dead` until the supervisor sees it."""
    alive = is_alive(entry)
    state = entry.state if alive or entry.pid is None else "dead"
    return {
        "name": entry.name,
        "pid": entry.pid if alive else None,
        "state": state,
        "restarts": entry.restarts,
        "ports": entry.ports,
    }


def _document(run: RunFile, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"supervisor_pid": run.supervisor_pid, "http": run.addresses.http, "processes": rows}
