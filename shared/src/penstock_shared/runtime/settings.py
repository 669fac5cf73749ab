"""Settings that every service reads: `PENSTOCK_*` variables, frozen, no default secrets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """The part of the settings that all services share."""

    model_config = SettingsConfigDict(
        env_prefix="PENSTOCK_", frozen=True, extra="ignore", case_sensitive=False
    )

    nats_url: SecretStr
    """One URL, or several separated by commas; user and password included."""
    instance: str = "local"
    """Names this process among its replicas, in logs and in metrics."""
    ops_host: str = "127.0.0.1"
    ops_port: int = 0
    log_level: str = "info"
    root_key_file: Path | None = None
    """32 random bytes in base64: wraps every data key."""
    stream_replicas: int = 1
    drain_grace_s: float = 10.0


class LimitSettings(ServiceSettings):
    """Of the services at which clients come in; tenants' and users' limits are in their records."""

    redis_url: SecretStr | None = None
    """Holds the rate limits. Without it each instance limits on its own."""
    redis_timeout_s: Annotated[float, Field(gt=0)] = 0.1
    global_requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    """Of all tenants together."""
    global_tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    address_requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    """Of each client address, whatever keys it uses; not over NATS."""
    address_tokens_per_minute: Annotated[int, Field(ge=1)] | None = None


S = TypeVar("S", bound=ServiceSettings)


def load_settings(cls: type[S]) -> S:
    """Read the settings from the environment, or exit with a sentence that names the variable.

    With `--check-config` on the command line they are printed, secrets masked, and the process
    exits.
    """
    try:
        settings = cls()
    except ValidationError as error:
        lines = [
            f"PENSTOCK_{'_'.join(str(p) for p in e['loc']).upper()}: {e['msg']}"
            for e in error.errors()
        ]
        sys.stderr.write("Settings are incomplete. Set these:\n  " + "\n  ".join(lines) + "\n")
        raise SystemExit(2) from None
    if "--check-config" in sys.argv[1:]:
        print(json.dumps(settings.model_dump(mode="json"), indent=2))  # noqa: T201  asked for
        raise SystemExit(0)
    return settings
