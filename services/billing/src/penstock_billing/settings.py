"""What an operator can set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from penstock_shared.runtime.settings import ServiceSettings

Seconds = Annotated[float, Field(gt=0)]


class Settings(ServiceSettings):
    """`PENSTOCK_*` variables of billing."""

    postgres_dsn: SecretStr
    root_key_file: Path
    postgres_connections: Annotated[int, Field(ge=2, le=100)] = 6
    postgres_read_connections: Annotated[int, Field(ge=1, le=100)] = 2
    """For tenants' questions, which row-level security confines to the tenant that asks."""
    postgres_owner_dsn: SecretStr | None = None
    """Who owns the schema and migrates it; None: the user of `postgres_dsn`, who then may leave
    the role that the service works as."""
    batch_limit: Annotated[int, Field(ge=1, le=5_000)] = 1_000
    """Events per Postgres transaction, at most."""
    batch_linger_s: Annotated[float, Field(ge=0, le=5)] = 0.05
    """How long a batch waits for company: one commit per batch is what load costs Postgres."""
    relay_interval_s: Seconds = 1.0
    """How often the outbox is looked at, besides after every act."""
    reconcile_interval_s: Seconds = 30.0
    """How often the buckets are compared with Postgres."""
    reconciliation_interval_s: Seconds = 300.0
    """How often event log, usage, sums, ledger, invoices and Stripe's meter are compared."""
    position_interval_s: Seconds = 5.0
    """How often the consumer's lag is read for the metrics."""
    thresholds_interval_s: Seconds = 1.0
    """How often it is looked for quotas of which so much is used that it is told."""
    closing_interval_s: Seconds = 60.0
    """How often it is looked for months that are over."""
    closing_grace_s: Seconds = 7_200.0
    """How long a month that is over waits for facts of its requests."""
    stripe_api_key: SecretStr | None = None
    """None: nothing is told to Stripe, and nothing comes from there."""
    stripe_webhook_secrets: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Of every endpoint and both of one whose secret is rolled, separated by commas."""
    stripe_api_base: str | None = None
    """Another address than Stripe's own: for tests."""
    stripe_events_base: str | None = None
    """The same for the stream of meter events."""
    stripe_sync_interval_s: Seconds = 60.0
    """How often it is looked for tenants whom Stripe does not know as they are."""
    push_interval_s: Seconds = 60.0
    """How often usage is told to Stripe's meter, in whole cents."""
    push_stream_from: Annotated[int, Field(ge=1)] = 50
    """From so many pushes at once on they go through the stream of v2, by the hundred."""
    catch_up_interval_s: Seconds = 900.0
    """How often providers are asked for webhooks that they could not deliver."""
    notice_interval_s: Seconds = 5.0
    """How often stored webhooks are looked at, besides when one arrives."""
    braintree_merchant_id: str | None = None
    """None: nothing is collected through Braintree."""
    braintree_public_key: str | None = None
    braintree_private_key: SecretStr | None = None
    braintree_environment: Literal["sandbox", "production"] = "sandbox"
    braintree_merchant_account_id: str | None = None
    """One that settles in US dollars; None: the default one does."""
    braintree_url: str | None = None
    """Another address than Braintree's own: for tests."""
    payments_interval_s: Seconds = 5.0
    """How often it is looked for invoices to collect, and for payments and refunds to see to."""
    dunning_grace_days: Annotated[int, Field(ge=6, le=365)] = 7
    """From the first failure: until then it is tried again, on the days 1, 3 and 5."""
    dunning_suspend_days: Annotated[int, Field(ge=7, le=730)] = 14
    """From the first failure: then nothing more is accepted from the tenant until it pays."""
    webhook_host: str = "127.0.0.1"
    webhook_port: int = 0

    @model_validator(mode="after")
    def _whole(self) -> Self:
        keys = (self.braintree_merchant_id, self.braintree_public_key, self.braintree_private_key)
        if any(keys) and not all(keys):
            msg = "Braintree needs its merchant id, public key and private key: set all or none"
            raise ValueError(msg)
        if self.dunning_suspend_days <= self.dunning_grace_days:
            msg = "a tenant is suspended after its grace has begun: raise dunning_suspend_days"
            raise ValueError(msg)
        return self

    @field_validator("stripe_webhook_secrets", mode="before")
    @classmethod
    def _separated(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value
