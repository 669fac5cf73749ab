"""Train both reference models from nothing, measure them, write their cards.

`python -m penstock_models.train --out models` does all of it. It can be stopped and started again:
checkpoints are kept under `--state`. What torch needs in the environment is set here, for each
process that trains.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from penstock_models.card import write_card
from penstock_models.evaluate import DIALOGUES, evaluate
from penstock_models.messages import HELD_OUT_PER_CELL
from penstock_models.plans import LARGE, PLANS, SEED, SMALL, Plan
from penstock_models.publish import publish
from penstock_models.vocabulary_corpus import learn_vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence

# Activations are allocated anew in every step. Without these, glibc gives each large block back to
# the system and gets it again page by page: a fifth of the time (measured).
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
    "GLOO_SOCKET_IFNAME": "lo",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}
POLITENESS = "15"  # training leaves the cores to whoever else needs them


def train(plan: Plan, state: Path) -> None:
    """Train one model to its end; raises CalledProcessError if a worker failed."""
    name = plan.identity.name
    (state / name / "meeting").unlink(missing_ok=True)
    command = ["nice", "-n", POLITENESS, sys.executable, "-m", "penstock_models.learning"]
    command += ["--model", name, "--state", str(state), "--steps", str(plan.steps)]
    workers = [
        subprocess.Popen(  # noqa: S603 - our own module, our own arguments
            [*command, "--rank", str(rank), "--workers", str(plan.workers)],
            env={**os.environ, **ENVIRONMENT},
        )
        for rank in range(plan.workers)
    ]
    for worker in workers:
        code = worker.wait()
        if code:
            raise subprocess.CalledProcessError(code, worker.args)


def train_both(state: Path) -> None:
    """Learn the vocabulary, then train small, then large, which grows out of small."""
    state.mkdir(parents=True, exist_ok=True)
    if not (state / "tokenizer.json").exists():
        learn_vocabulary(SEED).save(str(state / "tokenizer.json"))
    for plan in (SMALL, LARGE):
        train(plan, state)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, export, measure, describe."""
    parser = argparse.ArgumentParser(description="Train the reference models from nothing.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model directories")
    parser.add_argument("--state", type=Path, help="folder for checkpoints, to go on after a stop")
    options = parser.parse_args(arguments)
    state = options.state or Path(tempfile.gettempdir()) / "penstock-models"
    train_both(state)
    for name in PLANS:
        directory = options.out / name
        publish(name, state, directory)
        dialogues = DIALOGUES if PLANS[name].diet.tool_share else 0
        write_card(directory, evaluate(directory, HELD_OUT_PER_CELL, dialogues))
    return 0


if __name__ == "__main__":
    sys.exit(main())
