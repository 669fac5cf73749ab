-- Accounts are true here; the buckets `tenants` and `keys` are copies that the outbox feeds.

create table billing.tenants (
    tenant              text primary key,
    name                text not null,
    status              text not null check (status in ('active', 'suspended')),
    requests_per_minute integer not null check (requests_per_minute > 0),
    created_at          timestamptz not null
);

create table billing.api_keys (
    key_id     text primary key,
    -- SHA-256 of the secret, hexadecimal; the secret itself is nowhere.
    sha256     text not null unique check (sha256 ~ '^[0-9a-f]{64}$'),
    tenant     text not null references billing.tenants,
    name       text not null,
    hint       text not null,
    created_at timestamptz not null,
    revoked_at timestamptz
);
create index api_keys_tenant on billing.api_keys (tenant);

-- Written in the transaction whose effect it tells; a row is deleted once it is published.
create table billing.outbox (
    id          bigint generated always as identity primary key,
    event_id    uuid not null unique,
    kind        text not null check (kind in ('tenant', 'key', 'fact')),
    key         text not null,
    event_type  text check ((kind = 'fact') = (event_type is not null)),
    payload     text not null,
    traceparent text,
    created_at  timestamptz not null
);
