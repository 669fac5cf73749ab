"""What an operator can set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from penstock_shared.contracts.requests import MAX_DEADLINE_S
from penstock_shared.contracts.streams import DEFAULT_REQUEST_DEADLINE_S, SWEEP_GRACE_S
from penstock_shared.runtime.settings import LimitSettings


class Settings(LimitSettings):
    """`PENSTOCK_*` variables of the router."""

    root_key_file: Path
    postgres_dsn: SecretStr | None = None
    """Billing's database, for quotas; without it tenants that have one are refused."""
    request_deadline_s: Annotated[float, Field(gt=0, le=MAX_DEADLINE_S)] = (
        DEFAULT_REQUEST_DEADLINE_S
    )
    """How long a request may take when it does not say so itself."""
    sweep_grace_s: Annotated[float, Field(ge=0)] = SWEEP_GRACE_S
    max_in_flight: Annotated[int, Field(ge=1)] = 2_000
    """Admissions decided at once; above it clients are told to come back."""
    fair_in_flight: Annotated[int, Field(ge=1)] = 64
    """Requests that a tenant of weight 1 may have open before more go to the over-share lane."""
    queue_limit: Annotated[int, Field(ge=1)] = 10_000
    """Jobs that may wait for a model whose record sets no limit of its own."""
    snapshot_every_s: Annotated[float, Field(gt=0)] = 60.0
    """How often what was learned is kept in the bucket `router`; a start reads the rest anew."""
    classifier_file: Path | None = None
    """Of models of your own (`python -m penstock_router.evaluate --help`); else the package's."""
