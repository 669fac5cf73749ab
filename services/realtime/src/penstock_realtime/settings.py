"""What realtime reads from the environment."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from penstock_shared.runtime.settings import LimitSettings


def _split(networks: object) -> object:
    """Of `PENSTOCK_TRUSTED_PROXIES`."""
    if not isinstance(networks, str):
        return networks
    return [network.strip() for network in networks.split(",") if network.strip()]


class Settings(LimitSettings):
    """Realtime's settings; `PENSTOCK_<NAME>`."""

    http_host: str = "127.0.0.1"
    http_port: int = 8080
    admin_key: SecretStr | None = None
    auth_callout_seed: SecretStr | None = None
    """Account seed (`SA…`) that signs the answers to NATS's auth callout; None leaves it off."""
    nats_sys_url: SecretStr | None = None
    """NATS as the system account's user: needed to disconnect a revoked key's connections."""
    allowed_origins: str = ""
    """Origins of web pages that may call, separated by commas; without it none may."""
    allow_insecure_providers: bool = False
    """Whether identity providers may have private addresses, and plain HTTP on loopback."""
    provider_timeout_s: float = 5.0
    """How long an identity provider may take to send its keys."""
    postgres_dsn: SecretStr | None = None
    """Keeps responses with `store` once EVENTS has them no more. Without it nothing does."""
    postgres_connections: Annotated[int, Field(ge=2, le=100)] = 4
    response_retention_days: Annotated[float, Field(gt=0)] = 30
    """For how long a response with `store` can be retrieved."""
    max_body_bytes: int = 1024 * 1024
    max_header_bytes: int = 32 * 1024
    header_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    """For a request's whole head."""
    body_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """How long a request's body may make no progress."""
    keep_alive_timeout_s: Annotated[float, Field(gt=0)] = 75.0
    """How long a connection may idle between requests."""
    max_connections_per_address: Annotated[int, Field(ge=1)] = 8192
    """TCP connections at once on this instance, WebSockets included; not of trusted proxies."""
    trusted_proxies: Annotated[
        tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_split)
    ] = ()
    """Networks in CIDR notation, separated by commas, whose X-Forwarded-For is believed."""
    admission_timeout_s: float = 10.0
    """How long the router may take to say "accepted"."""
    silence_s: float = 1.0
    """After how long without a frame the event log is asked whether the request has ended."""
    lost_socket_grace_s: float = 30.0
    """How long the responses of a WebSocket that was lost may go on."""
    websocket_deflate: bool = False
    """Whether a WebSocket client may ask for permessage-deflate (RFC 7692)."""
    session_buffer_bytes: int = 256 * 1024
    """Text that may wait for one session's reader; more is read again later, or given up."""
    slow_reader_timeout_s: float = 30.0
    """How long one event may wait for a WebSocket's reader before the socket is closed (1013)."""
    idle_timeout_s: float = 3600.0
    """After how long without a response a WebSocket is closed."""
    first_message_timeout_s: float = 5.0
    """How long a browser's WebSocket may take to authenticate."""
    session_window_s: float = 900.0
    """How long a session can be resumed after its socket was lost."""
    max_sockets_per_tenant: int = 10_000
    """WebSockets at once on this instance, where the tenant's record does not say otherwise."""
    max_sockets_per_address: int = 1_000
    max_responses_per_socket: int = 64
    """How many responses may run side by side on one WebSocket."""
