"""`penstock dead`: what could not be handled, why, and a second chance for it."""

import asyncio
import json
import os
from typing import Annotated

import typer

from penstock.commands.options import DataDirOption, JsonOption
from penstock.stack_locator import locate_stack

_HELP = """Look at dead letters: messages that could not be handled. Their content stays encrypted.

Examples:

  penstock dead list

  penstock dead show 3 --reveal

  penstock dead replay 3
"""
_Number = Annotated[int, typer.Argument(min=1, help="Its number in `penstock dead list`.")]
app = typer.Typer(help=_HELP, no_args_is_help=True)


@app.command("list")
def list_letters(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List dead letters, oldest first."""
    from penstock.graveyard import Grave, graveyard  # noqa: PLC0415 - loads the bus's client

    async def read() -> list[Grave]:
        async with graveyard(locate_stack(data_dir, os.environ)) as place:
            return await place.graves(tenant)

    graves = asyncio.run(read())
    if as_json:
        letters = [{"number": g.number, **g.letter.model_dump(mode="json")} for g in graves]
        typer.echo(json.dumps({"letters": letters}))
        return
    from penstock.presentation import show_table  # noqa: PLC0415 - loads rich

    show_table(
        ("NUMBER", "DIED AT", "SUBJECT", "CODE", "REASON"),
        [
            (
                str(g.number),
                g.letter.died_at.isoformat(timespec="seconds"),
                g.letter.subject,
                g.letter.error.code,
                g.letter.error.message,
            )
            for g in graves
        ],
        right={"NUMBER"},
    )


@app.command("show")
def show(
    number: _Number,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Decrypt and print the content.")
    ] = False,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one dead letter; its content only with --reveal."""
    from penstock.graveyard import graveyard  # noqa: PLC0415 - loads the bus's client

    async def read() -> dict[str, object]:
        async with graveyard(locate_stack(data_dir, os.environ)) as place:
            grave = await place.grave(number)
            shown = {"number": grave.number, **grave.letter.model_dump(mode="json")}
            if reveal:
                shown["revealed"] = (await place.content(grave)).decode(errors="replace")
            return shown

    typer.echo(json.dumps(asyncio.run(read()), indent=None if as_json else 2))


@app.command("replay")
def replay(number: _Number, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """Send a dead letter again, as a new request."""
    from penstock.graveyard import graveyard  # noqa: PLC0415 - loads the bus's client

    async def again() -> str:
        async with graveyard(locate_stack(data_dir, os.environ)) as place:
            return await place.replay(await place.grave(number))

    request_id = asyncio.run(again())
    shown = json.dumps({"number": number, "request_id": request_id})
    typer.echo(shown if as_json else f"Letter {number} is queued again as request {request_id}.")


def register(root: typer.Typer) -> None:
    """Add the commands to the application."""
    root.add_typer(app, name="dead")
