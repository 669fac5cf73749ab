"""The `penstock` command: registers the subcommands, and turns errors into sentences."""

import sys

import typer

from penstock import __version__
from penstock.commands import (
    audit,
    billing,
    credit,
    dead,
    invoice,
    keys,
    models,
    payments,
    plans,
    ps,
    quotas,
    router,
    scaled_object,
    tenants,
    up,
    usage,
)
from penstock.errors import OperatorError

COMMANDS = (
    up,
    ps,
    tenants,
    keys,
    models,
    router,
    plans,
    payments,
    credit,
    quotas,
    usage,
    billing,
    invoice,
    audit,
    dead,
    scaled_object,
)


def build_app() -> typer.Typer:
    """Assemble the application; each module in `COMMANDS` adds its own commands."""
    app = typer.Typer(
        name="penstock",
        help="Penstock: metered, audited, multi-tenant inference on your own machines.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for command in COMMANDS:
        command.register(app)
    return app


def main() -> None:
    """Run the command line; a mistake the operator can put right ends with status 1."""
    try:
        build_app()()
    except OperatorError as error:
        _fail(error)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def _root(
    version: bool = typer.Option(
        False,
        "--version",
        callback=_print_version,
        is_eager=True,  # before typer asks for a command
        help="Print the version.",
    ),
) -> None:
    """Penstock: metered, audited, multi-tenant inference on your own machines."""


def _fail(error: OperatorError) -> None:
    from penstock.presentation import show_error  # noqa: PLC0415 - loads rich

    show_error(error)
    sys.exit(1)
