"""`penstock up`: start a whole stack on this machine."""

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from penstock.commands.options import DataDirOption
from penstock.errors import explain_os_error
from penstock.settings import DEFAULT_HTTP_PORT, read_settings

_HELP = """Start everything on this machine and keep it running.

nats-server, PostgreSQL and Redis run as subprocesses on loopback, then the five services. What
dies is started again; Ctrl-C (or SIGTERM) drains and stops all of it.

Examples:

  penstock up

  penstock up --port 0 --data-dir ./data

  penstock up --ready-file ready.json --workers auto

Set PENSTOCK_NATS_URL, PENSTOCK_POSTGRES_DSN or PENSTOCK_REDIS_URL to use a server of your own.
"""


def up(
    data_dir: DataDirOption = None,
    port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65535,
            envvar="PENSTOCK_HTTP_PORT",
            help="Port of the HTTP interface; 0 finds a free one.",
        ),
    ] = DEFAULT_HTTP_PORT,
    ready_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write addresses and keys to this JSON file (mode 0600) when all is ready.",
        ),
    ] = None,
    workers: Annotated[
        str,
        typer.Option(
            metavar="N|auto[:[MIN-]MAX]",
            envvar="PENSTOCK_WORKERS",
            help="Number of worker processes; auto follows the queue, from none to MAX"
            " (one per four processors, at least two).",
        ),
    ] = "1",
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the services' logs.")] = False,
) -> None:
    """Start a stack and stay in the foreground until it is stopped."""
    from penstock.presentation import echo_log_line, show_ready  # noqa: PLC0415 - loads rich
    from penstock.stack import StackOptions, run_stack  # noqa: PLC0415 - loads the servers' clients

    settings = read_settings(os.environ, data_dir=data_dir, port=port, workers=workers)
    options = StackOptions(
        ready_file=ready_file.absolute() if ready_file else None,
        announce=(lambda _: None) if ready_file else show_ready,
        echo=echo_log_line if verbose else None,
    )
    try:
        asyncio.run(run_stack(settings, dict(os.environ), options))
    except OSError as error:
        raise explain_os_error(error, settings.data_dir) from error


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("up", help=_HELP)(up)
