"""Find the stack that an operator's command is about."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from penstock.addresses import without_credentials
from penstock.data_dir import DATA_DIR_VARIABLE, DataDir, resolve_data_dir
from penstock.errors import OperatorError
from penstock.run_file import RunFile, read_run_file


@dataclass(frozen=True, slots=True)
class Connections:
    """Where a stack's parts are, with the rights of its operator; None for what is not known."""

    nats_url: str = field(repr=False)
    postgres_dsn: str | None = field(repr=False)
    redis_url: str | None = field(repr=False)
    http_url: str | None
    admin_key: str | None = field(repr=False)
    audit_dir: Path | None
    root_key_file: Path | None
    metrics: Mapping[str, str]
    model_store: Path | None = None

    @property
    def public_nats_url(self) -> str:
        """The bus without credentials, for showing."""
        return ",".join(without_credentials(url) for url in self.nats_url.split(","))


def locate_stack(data_dir: Path | None, environ: Mapping[str, str]) -> Connections:
    """Find the stack: --data-dir, else the `PENSTOCK_*` addresses, else the default directory.

    Raises:
        OperatorError: No stack runs there.
    """
    nats_url = environ.get("PENSTOCK_NATS_URL")
    if data_dir is None and nats_url and DATA_DIR_VARIABLE not in environ:
        return _from_environment(nats_url, environ)
    return _from_run_file(*locate_run_file(data_dir, environ))


def locate_run_file(data_dir: Path | None, environ: Mapping[str, str]) -> tuple[DataDir, RunFile]:
    """Find the run file of the stack that owns the data directory.

    Raises:
        OperatorError: No stack runs there, or it is only just beginning to.
    """
    place = DataDir(resolve_data_dir(data_dir, environ))
    if not place.is_held():
        raise OperatorError(
            f"No stack runs on {place.root}.",
            "Start one with `penstock up`, or name its directory with --data-dir.",
        )
    run = read_run_file(place.run_file)
    if run is None:
        raise OperatorError(
            f"The stack on {place.root} is only just starting.", "Try again in a moment."
        )
    return place, run


def _from_run_file(place: DataDir, run: RunFile) -> Connections:
    addresses = run.addresses
    return Connections(
        nats_url=addresses.nats_url,
        postgres_dsn=addresses.postgres,
        redis_url=addresses.redis,
        http_url=addresses.http,
        admin_key=addresses.admin_key,
        audit_dir=Path(addresses.audit_dir),
        root_key_file=place.root_key_file,
        metrics=addresses.metrics,
        model_store=place.models,
    )


def _from_environment(nats_url: str, environ: Mapping[str, str]) -> Connections:
    """Take the same variables that the services of a production stack read."""
    audit_dir = environ.get("PENSTOCK_AUDIT_DIR")
    root_key = environ.get("PENSTOCK_ROOT_KEY_FILE")
    model_store = environ.get("PENSTOCK_MODEL_STORE")
    return Connections(
        nats_url=nats_url,
        postgres_dsn=environ.get("PENSTOCK_POSTGRES_DSN"),
        redis_url=environ.get("PENSTOCK_REDIS_URL"),
        http_url=environ.get("PENSTOCK_HTTP_URL"),
        admin_key=environ.get("PENSTOCK_ADMIN_KEY"),
        audit_dir=Path(audit_dir) if audit_dir else None,
        root_key_file=Path(root_key) if root_key else None,
        metrics={},
        model_store=Path(model_store) if model_store else None,
    )
