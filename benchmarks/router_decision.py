"""What a decision takes: features, estimates, plan and choice, in the router's own process.

With the classifier of the reference models and a tenant of whom the router has learned from judged
answers. Eight models are the reference models four times, each copy known to the classifier. No two
prompts are alike, and one word in twenty was never seen before: about as many as in RouteLLM's
prompts (6 %, when half of them have been read).
"""

from __future__ import annotations

import dataclasses
import gc
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Final

import numpy as np
from examples.demo.messages import MESSAGES

from benchmarks.harness.arithmetic import percentile
from benchmarks.harness.report import Aim, Grid, Options, Report
from penstock_router.adapters.classifier_file import load_classifier
from penstock_router.adapters.confidence_file import load_confidences
from penstock_router.adapters.lexicon_file import load_lexicon
from penstock_router.domain.breakers import Breakers
from penstock_router.domain.classifier import Classifier, Floats, Weights
from penstock_router.domain.decision import Decided, decide
from penstock_router.domain.features import features_of
from penstock_router.domain.learned import Learned
from penstock_router.domain.lexicon import Lexicon
from penstock_router.domain.modes import Modes
from penstock_router.domain.prospects import Asked, Platform
from penstock_shared.contracts.feedback import ResponseFeedback
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.requests import (
    AUTO_MODEL,
    ChatMessage,
    Content,
    RequestRouted,
    Sampling,
)
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.usage import Price
from penstock_shared.runtime.clock import IdSource, SystemClock

TOKENS: Final = (10, 100, 500, 2_000)
MODELS: Final = (2, 8)
AIM_TOKENS: Final = 500
P50_AIM_US: Final = 100.0
P99_AIM_US: Final = 1_000.0
_TENANT: Final = "bench"
_NEW_WORDS: Final = 0.05
_SEED: Final = 3
_REFERENCE: Final = (("penstock-small", 25), ("penstock-large", 200))


@dataclass(frozen=True, slots=True)
class Plan:
    """How much."""

    decisions: int
    learned_from: int


FULL: Final = Plan(decisions=5_000, learned_from=2_000)
QUICK: Final = Plan(decisions=300, learned_from=200)


@dataclass(frozen=True, slots=True)
class Decider:
    """All that decisions are made from."""

    lexicon: Lexicon
    platform: Platform
    learned: Learned
    ids: IdSource

    def ask(self, text: str) -> Asked:
        """A request, its features computed."""
        content = Content(messages=(ChatMessage(role="user", content=text),))
        return self.asked(content, self.ids.new(), datetime.now(UTC))

    def asked(self, content: Content, request_id: str, now: datetime) -> Asked:
        """The part of a decision that reads the text."""
        return Asked(
            tenant=_TENANT,
            request_id=request_id,
            data_subject="user",
            key_id="benchmark",
            model=AUTO_MODEL,
            content=content,
            features=features_of(content, self.lexicon),
            lane=Lane.STANDARD,
            max_output_tokens=None,
            deadline_s=120.0,
            now=now,
        )

    def decide(self, asked: Asked) -> Decided:
        """The part that does not."""
        return decide(asked, self.platform, self.learned.of(_TENANT))


def run(options: Options) -> Report:
    """Every number of models with every length; features alone are timed in the same calls."""
    plan = QUICK if options.quick else FULL
    lexicon = load_lexicon()
    found: dict[tuple[int, int], tuple[list[float], list[float]]] = {}
    for models in MODELS:
        decider = _decider(lexicon, models, plan.learned_from)
        for tokens in TOKENS:
            prompts = _prompts(lexicon, tokens, plan.decisions, seed=models)
            found[models, tokens] = _time(decider, prompts)
    rows: dict[str, dict[str, float]] = {
        f"{models} models, {tokens} tokens": {
            "features_p50_us": percentile(features_s, 0.5) * 1e6,
            "p50_us": percentile(whole_s, 0.5) * 1e6,
            "p99_us": percentile(whole_s, 0.99) * 1e6,
        }
        for (models, tokens), (features_s, whole_s) in found.items()
    }
    aimed = rows[f"{MODELS[0]} models, {AIM_TOKENS} tokens"]
    return Report(
        name="router_decision",
        grids=[
            Grid(
                "One decision, features included",
                ("", "features p50 µs", "whole p50 µs", "whole p99 µs"),
                tuple(
                    (name, *(f"{value:.0f}" for value in row.values()))
                    for name, row in rows.items()
                ),
            )
        ],
        figures=rows,
        aims=[
            Aim(
                f"a prompt of {AIM_TOKENS} tokens in {P50_AIM_US:.0f} µs at p50",
                f"{aimed['p50_us']:.0f} µs",
                aimed["p50_us"] <= P50_AIM_US,
            ),
            Aim(
                f"and in {P99_AIM_US:.0f} µs at p99",
                f"{aimed['p99_us']:.0f} µs",
                aimed["p99_us"] <= P99_AIM_US,
            ),
        ],
    )


def _time(decider: Decider, prompts: Sequence[str]) -> tuple[list[float], list[float]]:
    """Seconds of the features alone, and of the whole, of each prompt but the first ones."""
    contents = [Content(messages=(ChatMessage(role="user", content=each),)) for each in prompts]
    ids = [decider.ids.new() for _ in contents]
    now, features_s, whole_s = datetime.now(UTC), [], []
    gc.collect()
    for content, request_id in zip(contents, ids, strict=True):
        began_s = perf_counter()
        asked = decider.asked(content, request_id, now)
        read_s = perf_counter()
        decider.decide(asked)
        features_s.append(read_s - began_s)
        whole_s.append(perf_counter() - began_s)
    warm = len(prompts) // 10
    return features_s[warm:], whole_s[warm:]


def _prompts(lexicon: Lexicon, tokens: int, number: int, *, seed: int) -> list[str]:
    """Texts of as many tokens as the router counts, nearly."""
    rng = random.Random(f"{seed} {tokens}")
    per_word = lexicon.read(" ".join(_words(rng, tokens))).token_count / tokens
    return [" ".join(_words(rng, max(1, round(tokens / per_word)))) for _ in range(number)]


def _words(rng: random.Random, number: int) -> Iterator[str]:
    """The demo's words in any order, and some that nobody has ever written."""
    said = [word for message in MESSAGES for word in message.text.split()]
    for _ in range(number):
        if rng.random() < _NEW_WORDS:
            yield "".join(rng.choices("abcdefghiklmnoprstuvz", k=rng.randrange(4, 10)))
        else:
            yield rng.choice(said)


def _decider(lexicon: Lexicon, models: int, learned_from: int) -> Decider:
    records = [
        _record(name, price, copy) for copy in range(models // 2) for name, price in _REFERENCE
    ]
    platform = Platform(
        records,
        _known_to_all(load_classifier(), records),
        load_confidences(),
        Breakers(),
        Modes(batch_wait_limit_s=60.0),
        {},
    )
    decider = Decider(lexicon, platform, Learned(), IdSource(SystemClock()))
    rng = random.Random(_SEED)
    for seq, text in enumerate(_prompts(lexicon, 60, learned_from, seed=_SEED)):
        _teach(decider, text, 2 * seq + 1, rng)
    return decider


def _record(name: str, price: int, copy: int) -> ModelRecord:
    return ModelRecord(
        name=f"{name}-{copy}" if copy else name,
        version="1.0.0",
        parameters=0,
        context_tokens=4096,
        price=Price(input_microusd_per_1k=price, output_microusd_per_1k=4 * price + copy),
    )


def _known_to_all(classifier: Classifier, records: Sequence[ModelRecord]) -> Classifier:
    """The classifier with as many copies of its weights as there are copies of its models."""
    weights = classifier._weights  # noqa: SLF001  served from a file, never put together
    assert isinstance(weights, Weights)
    copies = len(records) // len(weights.models)

    def wide(array: Floats) -> Floats:
        return np.tile(array, copies)

    return Classifier(
        dataclasses.replace(
            weights,
            models={record.name: record.version for record in records},
            words=wide(weights.words),
            base=wide(weights.base),
            curves=weights.curves * copies,
            near=wide(weights.near),
        )
    )


def _teach(decider: Decider, text: str, seq: int, rng: random.Random) -> None:
    """One request is routed, and its answer judged."""
    asked = decider.ask(text)
    decided = decider.decide(asked)
    routed = RequestRouted(
        request_id=asked.request_id,
        tenant=_TENANT,
        key_id=asked.key_id,
        data_subject=asked.data_subject,
        lane=asked.lane,
        attempt=1,
        decision=decided.decision,
        price=decided.models[0].price,
        sampling=Sampling(),
        content="",
        accepted_at=asked.now,
        deadline=asked.now + timedelta(seconds=asked.deadline_s),
    )
    judged = ResponseFeedback(
        request_id=asked.request_id,
        tenant=_TENANT,
        key_id=asked.key_id,
        model=routed.model,
        attempt=1,
        score=float(rng.random() < 0.9),
        given_at=asked.now,
    )
    decider.learned.fold_routed(routed, seq)
    decider.learned.fold_feedback(judged, routed.decision, seq + 1)
