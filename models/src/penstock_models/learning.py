"""One process of a model's training: it can be killed at any time and goes on where it saved.

The learning rate and the mixture depend on the step alone, never on the clock. Starting again with
fewer `--steps` begins the decay earlier.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, distributed
from torch.nn import functional

from penstock_models.architecture import Decoder
from penstock_models.growth import grow
from penstock_models.plans import PLANS, SEED, Plan
from penstock_models.samples import Batch, Encoder, Feeder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

REPORT_STEPS = 25
SAVE_STEPS = 100
MEETING_STEPS = 10  # workers learn by themselves and meet so often; saving falls on a meeting


@dataclass(frozen=True)
class Rank:
    """Which of how many workers this process is."""

    number: int
    workers: int

    @property
    def leads(self) -> bool:
        """Whether this process reports and saves."""
        return self.number == 0


class Learner:
    """A model, its optimisers and its place in the training."""

    def __init__(self, plan: Plan, state: Path, rank: Rank) -> None:
        """Go on from the checkpoint in `state`, or begin."""
        torch.manual_seed(SEED)
        self.plan, self.state, self.rank = plan, state, rank
        self.model = self._first_model()
        self.step = self.block = 0
        self._optimisers = make_optimisers(self.model, plan.learning_rate)
        if (state / "checkpoint.pt").exists():
            self._load()

    def _first_model(self) -> Decoder:
        plan = self.plan
        if plan.grown_from is None:
            return Decoder(plan.shape, compiled=True)
        saved = torch.load(self.state.parent / plan.grown_from / "checkpoint.pt", weights_only=True)
        narrow = Decoder(PLANS[plan.grown_from].shape)
        narrow.load_state_dict(saved["model"])
        return grow(narrow, plan.shape, compiled=True)

    def learn(self, batch: Batch, steps: int) -> Tensor:
        """One step on `batch` (and the other workers' batches); returns the loss before it."""
        logits = self.model(torch.from_numpy(batch.tokens), torch.from_numpy(batch.positions))
        loss = functional.cross_entropy(logits, torch.from_numpy(batch.targets))
        loss.backward()
        for optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.plan.rate(self.step, steps)
            optimiser.step()
            optimiser.zero_grad()
        self.step += 1
        if self.rank.workers > 1 and self.step % MEETING_STEPS == 0:
            self._average_weights()
        return loss.detach()

    def save(self) -> None:
        """Write the checkpoint; a reader sees the old one or the new one, whole."""
        content = {
            "model": self.model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
            "step": self.step,
            "block": self.block,
        }
        torch.save(content, self.state / "checkpoint.new")
        (self.state / "checkpoint.new").replace(self.state / "checkpoint.pt")

    def _load(self) -> None:
        content = torch.load(self.state / "checkpoint.pt", weights_only=True)
        self.model.load_state_dict(content["model"])
        for optimiser, saved in zip(self._optimisers, content["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.block = content["step"], content["block"]

    def _average_weights(self) -> None:
        """Give every worker the mean of all weights.

        Meeting at every step would let the slowest core set the pace of both, and on a machine that
        others use too a core is slow for seconds at a time. Source: Lin et al., "Don't use large
        mini-batches, use local SGD", 2020.
        """
        weights = list(self.model.parameters())
        with torch.no_grad():
            flat = torch.cat([weight.reshape(-1) for weight in weights])
            distributed.all_reduce(flat)
            parts = (flat / self.rank.workers).split([weight.numel() for weight in weights])
            for weight, part in zip(weights, parts, strict=True):
                weight.copy_(part.view_as(weight))


def make_optimisers(model: Decoder, rate: float) -> list[Any]:
    """Muon for the matrices inside the layers, AdamW for embeddings and gains.

    Source: Jordan et al., "Muon", 2024; the scale that lets both share one rate is from Liu et al.,
    "Muon is scalable for LLM training", 2025.
    """
    inner = [weight for weight in model.layers.parameters() if weight.ndim == 2]  # noqa: PLR2004
    known = {id(weight) for weight in inner}
    rest = [weight for weight in model.parameters() if id(weight) not in known]
    muon = torch.optim.Muon(inner, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
    return [muon, adam]


def supply(learner: Learner, feeder: Feeder, steps: int) -> Iterator[Batch]:
    """Batches without end; each block's content follows from seed, model, worker and number."""
    name = learner.plan.identity.name
    while True:
        seed = f"{SEED}-{name}-{learner.rank.number}-{learner.block}"
        learner.block += 1
        yield from feeder.batches(seed, learner.step / steps)


def train(learner: Learner, feeder: Feeder, steps: int) -> None:
    """Train up to the last of `steps`."""
    losses: list[Tensor] = []
    began = time.monotonic()
    for batch in supply(learner, feeder, steps):
        if learner.step >= steps:
            break
        losses.append(learner.learn(batch, steps))
        if learner.rank.leads and learner.step % REPORT_STEPS == 0:
            spent, began = time.monotonic() - began, time.monotonic()
            speed = len(losses) * learner.plan.batch_tokens / spent
            loss = float(torch.stack(losses).mean())
            rate = learner.plan.rate(learner.step, steps)
            print(
                f"{time.strftime('%H:%M:%S')} step {learner.step} loss {loss:.4f} "
                f"rate {rate:.5f} tokens/s {speed:.0f}",
                flush=True,
            )
            losses.clear()
        if learner.rank.leads and learner.step % SAVE_STEPS == 0:
            learner.save()
    if learner.rank.leads:
        learner.save()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one worker of one phase."""
    parser = argparse.ArgumentParser(description="One process of a model's training.")
    parser.add_argument("--model", choices=sorted(PLANS), required=True)
    parser.add_argument("--state", type=Path, required=True, help="checkpoint and tokenizer")
    parser.add_argument("--steps", type=int, required=True, help="of the whole schedule")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch._dynamo.config.recompile_limit = 64  # noqa: SLF001 - one graph per sequence length
    rank, state = Rank(options.rank, options.workers), options.state / options.model
    state.mkdir(parents=True, exist_ok=True)
    if rank.workers > 1:
        meeting = (state / "meeting").resolve()
        distributed.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank.number, world_size=rank.workers
        )
    plan = PLANS[options.model]
    learner = Learner(plan, state, rank)
    encoder = Encoder(Tokenizer.from_file(str(options.state / "tokenizer.json")))
    train(learner, Feeder(encoder, plan.diet, plan.batch_tokens), options.steps)
    return 0


if __name__ == "__main__":
    sys.exit(main())
