-- Limits by tokens and users, identity providers; keys with a role, an expiry and a last use. The
-- defaults let the release before this one go on writing tenants and keys.

alter table billing.tenants
    add column tokens_per_minute        integer check (tokens_per_minute > 0),
    add column user_requests_per_minute integer check (user_requests_per_minute > 0),
    add column user_tokens_per_minute   integer check (user_tokens_per_minute > 0),
    add column max_connections          integer check (max_connections > 0),
    add column identity_providers       jsonb not null default '[]';

alter table billing.api_keys
    add column role         text not null default 'member'
                            check (role in ('admin', 'member', 'read-only')),
    add column lifetime_s   bigint check (lifetime_s > 0),
    add column expires_at   timestamptz,
    -- Written by whoever sees the keys used, to the minute; no bucket and no fact has it.
    add column last_used_at timestamptz;

-- Whose tokens they are: an issuer's tokens for one audience belong to one tenant (I8).
create table billing.token_audiences (
    issuer   text not null,
    audience text not null,
    tenant   text not null references billing.tenants,
    primary key (issuer, audience)
);
create index token_audiences_tenant on billing.token_audiences (tenant);
