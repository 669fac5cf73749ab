"""What realtime reads from the environment."""

from __future__ import annotations

from pydantic import SecretStr

from penstock_shared.runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """Realtime's settings; `PENSTOCK_<NAME>`."""

    http_host: str = "127.0.0.1"
    http_port: int = 8080
    redis_url: SecretStr | None = None
    """Holds the rate limits. Without it each instance limits on its own."""
    admin_key: SecretStr | None = None
    auth_callout_seed: SecretStr | None = None
    """Account seed (`SA…`) that signs the answers to NATS's auth callout; None leaves it off."""
    nats_sys_url: SecretStr | None = None
    """NATS as the system account's user: needed to disconnect a revoked key's connections."""
    max_body_bytes: int = 1024 * 1024
    max_header_bytes: int = 32 * 1024
    admission_timeout_s: float = 10.0
    """How long the router may take to say "accepted"."""
    redis_timeout_s: float = 0.1
    silence_s: float = 1.0
    """After how long without a frame the event log is asked whether the request has ended."""
    lost_socket_grace_s: float = 30.0
    """How long the responses of a WebSocket that was lost may go on."""
    max_responses_per_socket: int = 64
    """How many responses may run side by side on one WebSocket."""
