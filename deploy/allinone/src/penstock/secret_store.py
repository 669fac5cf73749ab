"""Generated passwords and keys of one stack, made once and kept in one file (mode 0600)."""

import base64
import json
import secrets
import string
from pathlib import Path

import nkeys
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from penstock.data_dir import DataDir
from penstock.errors import OperatorError
from penstock.private_file import write_private

_ALPHABET = string.ascii_letters + string.digits
_PASSWORD_LENGTH = 32
_ROOT_KEY_BYTES = 32


def new_password() -> str:
    """Make a password of letters and digits (about 189 bits) that begins with a letter.

    nats-server's parser reads a purely numeric password as a number, and URLs need no escaping.
    """
    tail = (secrets.choice(_ALPHABET) for _ in range(_PASSWORD_LENGTH - 1))
    return secrets.choice(string.ascii_letters) + "".join(tail)


def new_account_seed() -> str:
    """Make the seed (`SA…`) of the account key that signs the auth callout's answers."""
    seed = nkeys.encode_seed(secrets.token_bytes(32), prefix=nkeys.PREFIX_BYTE_ACCOUNT)
    return bytes(seed).decode("ascii")


def public_account_key(seed: str) -> str:
    """Derive the public key (`A…`) that nats-server's configuration names as the issuer."""
    public = nkeys.from_seed(bytearray(seed, "ascii")).public_key
    return bytes(public).decode("ascii")


def _secret() -> SecretStr:
    return SecretStr(new_password())


class Secrets(BaseModel):
    """Everything that the stack keeps secret; printing it shows asterisks only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nats_password: SecretStr = Field(default_factory=_secret)
    nats_system_password: SecretStr = Field(default_factory=_secret)
    nats_route_password: SecretStr = Field(default_factory=_secret)
    postgres_superuser_password: SecretStr = Field(default_factory=_secret)
    postgres_password: SecretStr = Field(default_factory=_secret)
    redis_password: SecretStr = Field(default_factory=_secret)
    auth_callout_seed: SecretStr = Field(default_factory=lambda: SecretStr(new_account_seed()))
    admin_key: SecretStr = Field(default_factory=lambda: SecretStr("pad_" + new_password()))
    demo_api_key: SecretStr | None = None

    def with_demo_api_key(self, key: str) -> "Secrets":
        """Return the same secrets with the demo tenant's key."""
        return self.model_copy(update={"demo_api_key": SecretStr(key)})


def load_or_create_secrets(data_dir: DataDir) -> Secrets:
    """Read the stack's secrets, making those that do not exist yet.

    Raises:
        OperatorError: The file is there and cannot be understood; it is never overwritten.
    """
    path = data_dir.secrets_file
    try:
        stored = Secrets.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        stored = Secrets()
    except ValidationError as error:
        raise OperatorError(
            f"{path} is damaged ({error.error_count()} entries cannot be read).",
            "Restore it from a backup; without it the servers' data cannot be opened.",
        ) from error
    save_secrets(data_dir, stored)
    return stored


def save_secrets(data_dir: DataDir, stored: Secrets) -> None:
    """Write the secrets back, for instance after the demo key was issued."""
    plain = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in stored
    }
    write_private(data_dir.secrets_file, json.dumps(plain, indent=1))


def ensure_root_key(path: Path) -> Path:
    """Create the root key file unless it exists: 32 random bytes in base64, mode 0600."""
    if not path.exists():
        key = base64.b64encode(secrets.token_bytes(_ROOT_KEY_BYTES)).decode("ascii")
        write_private(path, key + "\n")
    return path
