"""Decisions without a router around them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from penstock_router.domain.breakers import Breakers
from penstock_router.domain.classifier import Classifier
from penstock_router.domain.confidence import Confidences
from penstock_router.domain.decision import Decided, decide
from penstock_router.domain.features import features_of
from penstock_router.domain.learned import TenantLearned
from penstock_router.domain.lexicon import Lexicon
from penstock_router.domain.modes import Modes
from penstock_router.domain.prospects import Asked, Platform
from penstock_router.domain.queue_load import QueueLoad
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.requests import Content
from penstock_shared.contracts.subjects import Lane

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
LEXICON = Lexicon()


def platform(models: Collection[ModelRecord], **parts: Any) -> Platform:
    """Nothing wrong, nothing learned, and no classifier, but for the given parts."""
    known: dict[str, Any] = {
        "classifier": Classifier(),
        "confidences": Confidences({}),
        "breakers": Breakers(),
        "modes": Modes(batch_wait_limit_s=60),
        "loads": defaultdict(QueueLoad),
        **parts,
    }
    return Platform(models, **known)


def decide_plainly(
    requested: str,
    models: Collection[ModelRecord],
    content: Content,
    *,
    learned: TenantLearned | None = None,
    request_id: str = "01930000-0000-7000-8000-000000000001",
    data_subject: str = "u1",
    **parts: Any,
) -> Decided:
    """What a router decides that has just been started."""
    asked = Asked(
        tenant="acme",
        request_id=request_id,
        data_subject=data_subject,
        key_id="k1",
        model=requested,
        content=content,
        features=features_of(content, LEXICON),
        lane=Lane.STANDARD,
        max_output_tokens=None,
        deadline_s=60,
        now=NOW,
    )
    return decide(asked, platform(models, **parts), learned or TenantLearned("acme"))
