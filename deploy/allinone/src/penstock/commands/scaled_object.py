"""`penstock scaled-object`: how KEDA scales the workers, for `kubectl apply`."""

import json
import os
from typing import Annotated

import typer

from penstock.errors import OperatorError
from penstock.scaled_object import Trigger, scaled_object
from penstock.scaling import WorkerRange
from penstock.settings import read_scaling

_HELP = """Print the KEDA ScaledObject for a cluster's workers as JSON, which is YAML, too.

With the nats-jetstream trigger name every model: each of its lanes is a trigger. The thresholds
are those of `penstock up --workers auto` (PENSTOCK_SCALE_*).

Examples:

  penstock scaled-object penstock-small my-model --max 8 | kubectl apply -f -

  penstock scaled-object --trigger prometheus | kubectl apply -f -
"""
DEFAULT_MOST = 8


def print_scaled_object(
    models: Annotated[list[str] | None, typer.Argument(metavar="MODEL")] = None,
    trigger: Annotated[
        Trigger, typer.Option(help="Where KEDA reads the lag.")
    ] = Trigger.NATS_JETSTREAM,
    least: Annotated[int, typer.Option("--min", min=0, help="Replicas that always run.")] = 0,
    most: Annotated[int, typer.Option("--max", min=1, help="Replicas at most.")] = DEFAULT_MOST,
) -> None:
    """Print the object; fail when it would scale on nothing."""
    if trigger is Trigger.NATS_JETSTREAM and not models:
        raise OperatorError(
            "No model is named.", "Name those that the workers serve, or use --trigger prometheus."
        )
    if least > most:
        raise OperatorError(
            f"--min is {least}, and --max {most}.", "Give a --max of at least --min."
        )
    policy = read_scaling(os.environ)
    typer.echo(
        json.dumps(scaled_object(trigger, models or [], policy, WorkerRange(least, most)), indent=2)
    )


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("scaled-object", help=_HELP)(print_scaled_object)
