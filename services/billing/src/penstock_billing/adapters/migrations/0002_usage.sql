-- One row per attempt of a request (I2). The tenant is part of the identity: a request id is
-- chosen by whoever sends it, and nobody may occupy another tenant's (I8).

create table billing.usage (
    tenant        text not null,
    request_id    uuid not null,
    attempt       integer not null,
    event_seq     bigint not null,
    model         text not null,
    key_id        text not null,
    status        text not null,
    input_tokens  bigint not null check (input_tokens >= 0),
    output_tokens bigint not null check (output_tokens >= 0),
    cost_microusd bigint not null check (cost_microusd >= 0),
    ended_at      timestamptz not null,
    primary key (tenant, request_id, attempt)
);

-- A row here asks that EVENTS be read again from its beginning (I9). A database that has just
-- been made has read nothing, whatever the position of the consumer says.
create table billing.rebuild (
    requested_at timestamptz not null default now()
);
insert into billing.rebuild default values;
