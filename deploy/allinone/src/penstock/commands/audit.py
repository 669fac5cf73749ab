"""`penstock audit`: verify the audit log offline, and show its latest signed checkpoint."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.commands.options import DataDirOption, JsonOption
from penstock.data_dir import DataDir, resolve_data_dir
from penstock.errors import OperatorError
from penstock.stack_locator import locate_stack

if TYPE_CHECKING:
    from penstock.audit_desk import Case
    from penstock_audit.errors import VerificationError

_HELP = "Verify the tamper-evident log of every event, and show its signed checkpoint."
_VERIFY_HELP = """Verify the audit log: every event, every hash, the signature.

Needs no running stack: the directory and the public key suffice.

Examples:

  penstock audit verify

  penstock audit verify --log /mnt/copy/log --key audit.pub --kept last-month.txt

  penstock audit verify --against-events --json
"""
_CHECKPOINT_HELP = """Print the latest signed checkpoint of the running audit service.

Keep it somewhere else: `penstock audit verify --kept FILE` then shows that the log only grew.

Examples:

  penstock audit checkpoint > checkpoint.txt
"""
_PUBLIC_KEY_FILE = "audit.pub"

audit = typer.Typer(help=_HELP, no_args_is_help=True, pretty_exceptions_enable=False)


@audit.command("verify", help=_VERIFY_HELP)
def verify(
    data_dir: DataDirOption = None,
    log: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The log's directory, or a copy of it."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="FILE|KEY", help="The log's public key, as a file or as text."),
    ] = None,
    kept: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A checkpoint kept from earlier; may be repeated."),
    ] = None,
    against_events: Annotated[
        bool,
        typer.Option("--against-events", help="Also compare with the live event log."),
    ] = False,
    wait_s: Annotated[
        float,
        typer.Option("--wait", min=0, metavar="SECONDS", help="How long audit may lag behind."),
    ] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Print tree size, root, last event and key; exit with status 1 when anything is wrong."""
    from penstock.audit_desk import Case  # noqa: PLC0415 - loads cryptography and the bus
    from penstock_audit.errors import VerificationError  # noqa: PLC0415 - as above

    path = log or _log_dir(data_dir)
    case = Case(
        log=path,
        vkey=_read_key(key, path),
        kept=[_read_text(file) for file in kept or []],
        nats_url=locate_stack(data_dir, os.environ).nats_url if against_events else None,
        wait_s=wait_s,
    )
    try:
        document = _verify(case, quiet=as_json)
    except VerificationError as error:
        _report_failure(error, as_json=as_json)
        raise typer.Exit(1) from None
    _report(document, as_json=as_json)


@audit.command("checkpoint", help=_CHECKPOINT_HELP)
def checkpoint(data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """Ask the audit service for its latest checkpoint."""
    from penstock.audit_desk import ask_checkpoint  # noqa: PLC0415 - loads the bus's client

    nats_url = locate_stack(data_dir, os.environ).nats_url
    signed = ask_checkpoint(nats_url)
    typer.echo(signed.model_dump_json() if as_json else signed.checkpoint, nl=as_json)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(audit, name="audit")


def _log_dir(data_dir: Path | None) -> Path:
    """Find the log without a running stack: by the variable of a production stack, or below."""
    named = os.environ.get("PENSTOCK_AUDIT_DIR")
    if data_dir is None and named:
        return Path(named)
    return DataDir(resolve_data_dir(data_dir, os.environ)).service("audit")


def _read_key(key: str | None, log: Path) -> str:
    if key is not None and not Path(key).is_file():
        return key
    candidates = [Path(key)] if key else [log / _PUBLIC_KEY_FILE, log.parent / _PUBLIC_KEY_FILE]
    for candidate in candidates:
        if candidate.is_file():
            return _read_text(candidate).strip()
    raise OperatorError(
        f"There is no audit log in {log}, or its public key is missing.",
        "Name the log with --log DIR and its key with --key FILE, or start a stack first.",
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"{path} cannot be read.", "Check the name and its owner.") from error


def _verify(case: "Case", *, quiet: bool) -> dict[str, Any]:
    from penstock.audit_desk import verify as verify_case  # noqa: PLC0415 - as above

    with _progress(enabled=not quiet) as progress:
        verified, position = verify_case(case, progress)
    document: dict[str, Any] = {
        "verified": True,
        "origin": verified.checkpoint.origin,
        "tree_size": verified.tree_size,
        "root_hash": verified.checkpoint.root_base64,
        "events_seq": verified.last_seq,
        "key": str(verified.verifier),
        "unsigned_events": verified.unsigned_events,
    }
    if position is not None:
        document["events_last_seq"] = position.last_seq
    return document


def _report(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(document))
        return
    lines = {
        "Log": document["origin"],
        "Entries": document["tree_size"],
        "Root": document["root_hash"],
        "Last event": f"EVENTS {document['events_seq']}",
        "Signed by": document["key"],
    }
    if "events_last_seq" in document:
        lines["Event log"] = f"ends at EVENTS {document['events_last_seq']}, nothing is missing"
    for name, value in lines.items():
        typer.echo(f"{name:<11} {value}")
    typer.secho("verified", fg=typer.colors.GREEN, bold=True)


def _report_failure(error: "VerificationError", *, as_json: bool) -> None:
    if as_json:
        document = {"verified": False, "error": error.message, "index": error.index}
        typer.echo(json.dumps(document))
        return
    typer.secho(f"NOT verified: {error.message}", fg=typer.colors.RED, bold=True, err=True)


@contextmanager
def _progress(*, enabled: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar on a terminal; nothing where nobody looks."""
    from rich import progress as bars  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415 - loads rich

    console = Console(stderr=True)
    if not (enabled and console.is_terminal):
        yield None
        return
    columns = (bars.BarColumn(), bars.MofNCompleteColumn(), bars.TimeRemainingColumn())
    with bars.Progress("Verifying", *columns, console=console, transient=True) as bar:
        task = bar.add_task("entries", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
