"""From a checkpoint to the published model directory."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer

from penstock_models.architecture import Decoder
from penstock_models.export import export_model
from penstock_models.plans import PLANS

if TYPE_CHECKING:
    from collections.abc import Sequence


def publish(name: str, state: Path, directory: Path) -> None:
    """Export the last checkpoint of model `name` under `state` into `directory`."""
    plan = PLANS[name]
    saved = torch.load(state / name / "checkpoint.pt", weights_only=True)
    model = Decoder(plan.shape)
    model.load_state_dict(saved["model"])
    tokenizer = Tokenizer.from_file(str(state / "tokenizer.json"))
    export_model(model, tokenizer, plan.identity, directory)


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish one model, also in the middle of its training."""
    parser = argparse.ArgumentParser(description="Export a checkpoint to CTranslate2, int8.")
    parser.add_argument("--model", choices=sorted(PLANS), required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="the model's directory")
    options = parser.parse_args(arguments)
    publish(options.model, options.state, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
