"""`penstock models`: which models there are, which version serves, and how workers do with them."""

import asyncio
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.billing_desk import build
from penstock.commands.options import DataDirOption, JsonOption
from penstock.errors import OperatorError
from penstock.registry.conversion import QUANTIZATIONS
from penstock.stack_locator import locate_stack
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.ids import subject_token
from penstock_shared.contracts.models import (
    ModelKind,
    ModelLayout,
    ModelLimits,
    ModelRecord,
    WorkerModels,
)

if TYPE_CHECKING:
    from penstock.registry.desk import ModelDesk, Overview

_ADD_HELP = """Add a model: a Hugging Face checkpoint, which is converted, or a converted model.

The first version of a model serves at once; a further one waits for `penstock models promote`.
Prices are micro-dollars per 1,000 tokens.

Examples:

  penstock models add ./Qwen2.5-0.5B-Instruct --name qwen --price-input 20 --price-output 60

  penstock models add ./qwen-finetuned --name qwen --version 2 --quantization int8

  penstock models add ./converted --name small --max-batch 8 --memory-bytes 2000000000
"""
_LIST_HELP = """List the models, their versions, and how they stand in each worker.

Examples:

  penstock models list

  penstock models list --json | jq '.workers[].models[] | select(.state == "failed")'
"""
_REMOVE_HELP = """Remove a version that does not serve, or a whole model.

Jobs that wait for a removed model end with an error.

Examples:

  penstock models remove qwen 1

  penstock models remove qwen
"""
_PROMOTE_HELP = """Let a version serve. No request is dropped; a quarantine is lifted.

Examples:

  penstock models promote qwen 2
"""
_Name = Annotated[str, typer.Argument(help="The model's name.")]


def add(
    path: Annotated[Path, typer.Argument(help="Directory of the checkpoint or model.")],
    name: Annotated[str | None, typer.Option(help="[default: the directory's]")] = None,
    version: Annotated[str | None, typer.Option(help="[default: the next number]")] = None,
    kind: Annotated[
        ModelKind | None, typer.Option(help="What it must be; read from its weights.")
    ] = None,
    context_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest context.  [default: the model's]")
    ] = None,
    shortest_dimensions: Annotated[
        int | None,
        typer.Option(min=1, help="How short its vectors may be cut, if trained so (Matryoshka)."),
    ] = None,
    price_input: Annotated[int, typer.Option(min=0, help="µ$ per 1,000 input tokens.")] = 0,
    price_output: Annotated[int, typer.Option(min=0, help="µ$ per 1,000 output tokens.")] = 0,
    quantization: Annotated[
        str, typer.Option(help="Of a checkpoint: int8, float16, int8_float16 or float32.")
    ] = "int8",
    chat_template: Annotated[
        Path | None, typer.Option(help="Jinja file, for a checkpoint that has none.")
    ] = None,
    slots: Annotated[int | None, typer.Option(help="Batches side by side.")] = None,
    max_batch: Annotated[int | None, typer.Option(help="Items in one batch.")] = None,
    queue: Annotated[int | None, typer.Option(help="Jobs that may wait.")] = None,
    memory_bytes: Annotated[int | None, typer.Option(help="What one worker needs for it.")] = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a model or a further version of one."""
    from penstock.presentation import progress_bar  # noqa: PLC0415 - loads rich
    from penstock.registry.addition import Wish  # noqa: PLC0415 - loads the engine

    given = {"slots": slots, "max_batch": max_batch, "queue": queue, "memory_bytes": memory_bytes}
    limits = build(ModelLimits, **given) if set(given.values()) != {None} else None
    wish = Wish(
        name=_token(name or _name_of(path)),
        version=_version(version),
        kind=kind,
        context_tokens=context_tokens,
        shortest_dimensions=shortest_dimensions,
        price_input_microusd_per_1k=price_input,
        price_output_microusd_per_1k=price_output,
        quantization=_quantization(quantization),
        chat_template=chat_template,
    )
    with progress_bar() as progress:
        added = wish.version
        record = asyncio.run(_desk(data_dir).add(path.absolute(), wish, limits, progress))
    added = added or record.versions[-1]
    if as_json:
        typer.echo(json.dumps({"version": added, "model": record.model_dump(mode="json")}))
        return
    typer.echo(f"{record.name} {added} is registered.")
    if added != record.version:
        typer.echo(
            f"Version {record.version} serves: penstock models promote {record.name} {added}"
        )


def list_all(data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """List the models."""
    overview = asyncio.run(_desk(data_dir).overview())
    if as_json:
        shown = {
            "models": [
                {**record.model_dump(mode="json"), "quarantined": record.quarantined}
                for record in overview.models
            ],
            "workers": [worker.model_dump(mode="json") for worker in overview.workers],
        }
        typer.echo(json.dumps(shown))
        return
    from penstock.presentation import show_table  # noqa: PLC0415 - loads rich

    show_table(
        ("MODEL", "KIND", "SERVES", "VERSIONS", "PARAMETERS", "CONTEXT", "SIZE MB", "ORIGIN"),
        [_row(record) for record in overview.models],
        right={"PARAMETERS", "CONTEXT", "SIZE MB"},
    )
    typer.echo()
    show_table(
        ("WORKER", "MODEL", "VERSION", "STATE", "MEMORY MB", "LAYOUT", "RUNNING", "WAITING"),
        _worker_rows(overview),
        right={"MEMORY MB", "RUNNING", "WAITING"},
    )
    for worker in overview.workers:
        for model in worker.models:
            if model.why is not None:  # below the table: a reason is longer than a column
                typer.echo(f"{worker.instance}: {model.name} {model.version}: {model.why}")


def remove(
    name: _Name,
    version: Annotated[str | None, typer.Argument(help="[default: the whole model]")] = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove a version, or a model."""
    asyncio.run(_desk(data_dir).remove(_token(name), _version(version) or None))
    shown = json.dumps({"removed": name, "version": version})
    typer.echo(shown if as_json else f"{' '.join(filter(None, (name, version)))} is removed.")


def promote(
    name: _Name,
    version: Annotated[str, typer.Argument(help="The version that is to serve.")],
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a version serve."""
    record = asyncio.run(_desk(data_dir).promote(_token(name), _version(version)))
    text = f"{record.name} {record.version} serves; workers change over once it is warm."
    typer.echo(record.model_dump_json() if as_json else text)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(help="Add, list, promote and remove models.", no_args_is_help=True)
    group.command("add", help=_ADD_HELP)(add)
    group.command("list", help=_LIST_HELP)(list_all)
    group.command("promote", help=_PROMOTE_HELP)(promote)
    group.command("remove", help=_REMOVE_HELP)(remove)
    app.add_typer(group, name="models")


def _desk(data_dir: Path | None) -> "ModelDesk":
    from penstock.registry.desk import ModelDesk  # noqa: PLC0415 - loads the engine

    return ModelDesk(locate_stack(data_dir, os.environ), os.environ)


def _name_of(path: Path) -> str:
    return re.sub(r"[^a-z0-9]+", "-", path.absolute().name.lower()).strip("-")


def _token(name: str) -> str:
    try:
        return subject_token(name)
    except PermanentError as error:
        raise OperatorError(error.message, "Give one with --name.") from error


def _version(version: str | None) -> str:
    if version is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", version):
        raise OperatorError(
            f"{version!r} is no valid version.",
            "Use 1 to 64 of letters, digits, '.', '_' and '-', beginning with a letter or digit.",
        )
    return version or ""


def _quantization(wanted: str) -> str:
    if wanted not in QUANTIZATIONS:
        raise OperatorError(
            f"--quantization is {wanted!r}.", f"Give one of: {', '.join(QUANTIZATIONS)}."
        )
    return wanted


def _row(record: ModelRecord) -> tuple[str, ...]:
    serves = f"{record.version} (quarantined)" if record.quarantined else record.version
    return (
        record.name,
        record.kind.value,
        serves,
        " ".join(record.versions),
        f"{record.parameters:,}",
        f"{record.context_tokens:,}",
        _megabytes(record.size_bytes),
        record.origin,
    )


def _worker_rows(overview: "Overview") -> Iterator[tuple[str, ...]]:
    for worker in overview.workers:
        yield from _rows_of(worker)


def _rows_of(worker: WorkerModels) -> Iterator[tuple[str, ...]]:
    for model in worker.models:
        layout = model.layout
        shown = "" if layout is None else _layout(layout)
        yield (
            worker.instance,
            model.name,
            model.version,
            model.state.value,
            _megabytes(model.memory_bytes),
            shown,
            str(model.running),
            str(model.waiting),
        )


def _layout(layout: ModelLayout) -> str:
    batches = f"{layout.slots} batches of {layout.max_batch}"
    return f"{layout.device} {layout.compute_type}, {batches}, threads each {layout.threads}"


def _megabytes(number: int) -> str:
    return f"{number / 1e6:,.1f}"
