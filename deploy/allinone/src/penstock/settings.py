"""What the operator decides: options of `penstock up` and `PENSTOCK_*` variables, read once."""

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

from penstock.data_dir import resolve_data_dir
from penstock.errors import OperatorError
from penstock.remembered import Topology
from penstock.scaling import ScalingPolicy, WorkerRange
from penstock_worker.adapters.machine import available_processors

SERVICES = ("billing", "audit", "router", "worker", "realtime")
DEFAULT_HTTP_PORT = 8080
_MOST_WORKERS = 64
# Each worker holds the models' weights itself: few large ones need less memory than many small.
_PROCESSORS_PER_WORKER = 4
_AUTO = re.compile(r"auto(?::(?:(?P<least>\d{1,3})-)?(?P<most>\d{1,3}))?")
_SCALE_PREFIX = "PENSTOCK_SCALE_"


class UpSettings(BaseModel):
    """The settings of one stack."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path
    http_host: str
    # 0 lets the system choose; the choice is kept for the next start.
    http_port: int = Field(ge=0, le=65535)
    workers: WorkerRange
    # Read even where the number is fixed: a slip shows at once, not at the next change.
    scaling: ScalingPolicy
    # What each worker may use. Shared out for the most workers there can be.
    processors_per_worker: int = Field(ge=1)
    services: tuple[str, ...]
    topology: Topology
    log_level: str
    models_dir: Path | None
    # Workers then serve `echo` besides; they read the variable themselves.
    echo_model: bool
    # Servers of the operator's own; None means the embedded one.
    nats_url: SecretStr | None
    # The system account's user on an own NATS.
    nats_sys_url: SecretStr | None
    postgres_dsn: SecretStr | None
    redis_url: SecretStr | None
    # With an own NATS: the seed of the account key that its configuration names as the issuer.
    auth_callout_seed: SecretStr | None
    stream_replicas: int | None = Field(ge=1, le=5)
    admin_key: SecretStr | None


def read_settings(
    environ: Mapping[str, str], *, data_dir: Path | None, port: int, workers: str
) -> UpSettings:
    """Combine options and environment.

    Raises:
        OperatorError: A variable has a value that makes no sense.
    """
    bounds = _workers(workers)
    return UpSettings(
        data_dir=resolve_data_dir(data_dir, environ),
        http_host=environ.get("PENSTOCK_HTTP_HOST", "127.0.0.1"),
        http_port=port,
        workers=bounds,
        scaling=read_scaling(environ),
        processors_per_worker=max(1, available_processors() // bounds.most),
        services=_services(environ.get("PENSTOCK_SERVICES")),
        topology=_topology(environ.get("PENSTOCK_NATS_TOPOLOGY", Topology.SINGLE.value)),
        log_level=environ.get("PENSTOCK_LOG_LEVEL", "info"),
        models_dir=_path(environ.get("PENSTOCK_MODELS_DIR")),
        echo_model=_flag("PENSTOCK_ECHO_MODEL", environ),
        nats_url=_secret(environ.get("PENSTOCK_NATS_URL")),
        nats_sys_url=_secret(environ.get("PENSTOCK_NATS_SYS_URL")),
        postgres_dsn=_secret(environ.get("PENSTOCK_POSTGRES_DSN")),
        redis_url=_secret(environ.get("PENSTOCK_REDIS_URL")),
        auth_callout_seed=_secret(environ.get("PENSTOCK_AUTH_CALLOUT_SEED")),
        stream_replicas=_replicas(environ.get("PENSTOCK_STREAM_REPLICAS")),
        admin_key=_secret(environ.get("PENSTOCK_ADMIN_KEY")),
    )


def read_scaling(environ: Mapping[str, str]) -> ScalingPolicy:
    """Read `PENSTOCK_SCALE_<NUMBER>`; what is not set has its default.

    Raises:
        OperatorError: A number makes no sense.
    """
    given = {
        name.removeprefix(_SCALE_PREFIX).lower(): text
        for name, text in environ.items()
        if name.startswith(_SCALE_PREFIX) and text
    }
    try:
        return ScalingPolicy.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        variable = _SCALE_PREFIX + str(first["loc"][0]).upper()
        raise OperatorError(f"{variable} is {first['input']!r}.", f"{first['msg']}.") from error


def _workers(text: str) -> WorkerRange:
    """A number of workers, or `auto`, `auto:MAX`, `auto:MIN-MAX`: from zero if nothing is said."""
    if text.isdecimal() and 1 <= int(text) <= _MOST_WORKERS:
        return WorkerRange(int(text), int(text))
    if asked := _AUTO.fullmatch(text):
        least, most = int(asked["least"] or 0), int(asked["most"] or _most_by_default())
        if least < most <= _MOST_WORKERS:
            return WorkerRange(least, most)
    raise OperatorError(
        f"--workers is {text!r}.",
        f"Give a number from 1 to {_MOST_WORKERS}, or auto, auto:MAX or auto:MIN-MAX.",
    )


def _most_by_default() -> int:
    return max(2, min(_MOST_WORKERS, available_processors() // _PROCESSORS_PER_WORKER))


def _services(text: str | None) -> tuple[str, ...]:
    """All services, or those listed with commas; an empty list starts the servers alone."""
    if text is None:
        return SERVICES
    wanted = {name.strip() for name in text.split(",") if name.strip()}
    if unknown := wanted - set(SERVICES):
        raise OperatorError(
            f"PENSTOCK_SERVICES names {', '.join(sorted(unknown))}, which Penstock does not have.",
            f"List some of: {', '.join(SERVICES)}.",
        )
    return tuple(name for name in SERVICES if name in wanted)


def _topology(text: str) -> Topology:
    try:
        return Topology(text)
    except ValueError as error:
        raise OperatorError(
            f"PENSTOCK_NATS_TOPOLOGY is {text!r}.",
            f"Set it to one of: {', '.join(known.value for known in Topology)}.",
        ) from error


def _replicas(text: str | None) -> int | None:
    if not text:
        return None
    if text not in {"1", "3", "5"}:
        raise OperatorError(
            f"PENSTOCK_STREAM_REPLICAS is {text!r}.", "Set it to 1, 3 or 5, or leave it unset."
        )
    return int(text)


def _flag(variable: str, environ: Mapping[str, str]) -> bool:
    """Whether a variable says yes, in the words that the services understand, too."""
    try:
        return TypeAdapter(bool).validate_python(environ.get(variable) or "0")
    except ValidationError as error:
        raise OperatorError(
            f"{variable} is {environ[variable]!r}.", "Set it to 1 or 0, or leave it unset."
        ) from error


def _secret(text: str | None) -> SecretStr | None:
    return SecretStr(text) if text else None


def _path(text: str | None) -> Path | None:
    return Path(text).expanduser().absolute() if text else None
