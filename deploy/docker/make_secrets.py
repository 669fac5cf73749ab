#!/usr/bin/env python3
"""Make the passwords and keys that docker-compose.yml asks for.

    .venv/bin/python deploy/docker/make_secrets.py [DIRECTORY]

writes `.env` (mode 0600; what Compose fills in) and `deploy/docker/secrets/root.key` below
DIRECTORY, which is the repository unless it is named. What is there already stays as it is: the
volumes were made with it.
"""

import sys
from pathlib import Path

from penstock.private_file import make_private_directory, write_private
from penstock.secret_store import Secrets, ensure_root_key, public_account_key

REPOSITORY = Path(__file__).resolve().parents[2]


def compose_variables(secrets: Secrets) -> dict[str, str]:
    """Name the secrets as docker-compose.yml does; none has a character to be quoted."""
    seed = secrets.auth_callout_seed.get_secret_value()
    return {
        "PENSTOCK_NATS_PASSWORD": secrets.nats_password.get_secret_value(),
        "PENSTOCK_NATS_SYSTEM_PASSWORD": secrets.nats_system_password.get_secret_value(),
        "PENSTOCK_AUTH_CALLOUT_SEED": seed,
        "PENSTOCK_AUTH_CALLOUT_ISSUER": public_account_key(seed),
        "PENSTOCK_POSTGRES_PASSWORD": secrets.postgres_password.get_secret_value(),
        "PENSTOCK_POSTGRES_SUPERUSER_PASSWORD": (
            secrets.postgres_superuser_password.get_secret_value()
        ),
        "PENSTOCK_REDIS_PASSWORD": secrets.redis_password.get_secret_value(),
        "PENSTOCK_ADMIN_KEY": secrets.admin_key.get_secret_value(),
    }


def make_secrets(directory: Path) -> list[Path]:
    """Write the files that are missing and return them; safe to repeat after it died half-way."""
    root_key = directory / "deploy" / "docker" / "secrets" / "root.key"
    env = directory / ".env"
    missing = [path for path in (root_key, env) if not path.exists()]
    make_private_directory(root_key.parent).chmod(0o700)
    # The containers' user is another than the operator's and must read it; on the host nobody
    # else gets through the directory.
    ensure_root_key(root_key).chmod(0o444)
    if env in missing:
        lines = [f"{name}={value}" for name, value in compose_variables(Secrets()).items()]
        write_private(env, "\n".join([*lines, ""]))
    return missing


def main() -> None:
    """Make the files and say which."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY
    for path in make_secrets(directory):
        sys.stdout.write(f"Wrote {path}. Keep a copy: without it the volumes cannot be opened.\n")


if __name__ == "__main__":
    main()
