-- Responses with `store`, beyond the event log's own time: a projection of EVENTS (ADR 0014).

create table realtime.responses (
    tenant     text not null,
    request_id uuid not null,
    -- The two facts as they stood in EVENTS; their content is sealed (I10). Each may come first.
    routed     bytea,
    ended      bytea,
    -- A tombstone: it stays when the facts come later or again.
    deleted    boolean not null,
    expires_at timestamptz not null,
    primary key (tenant, request_id),
    check (not deleted or (routed is null and ended is null))
);
create index responses_expires on realtime.responses (expires_at);

-- Sealed text does not compress: trying costs time only.
alter table realtime.responses
    alter column routed set storage external,
    alter column ended set storage external;

-- A transaction sees the rows of the tenant that it names (I8), and none if it names none. '*' is
-- no tenant's name: with it the archive writes and prunes.
alter table realtime.responses enable row level security;
alter table realtime.responses force row level security;
create policy named_tenant on realtime.responses using (
    tenant = current_setting('realtime.tenant', true)
    or current_setting('realtime.tenant', true) = '*'
);

-- A row here asks that EVENTS be read again from its beginning (I9). A database that has just
-- been made has read nothing, whatever the position of the consumer says.
create table realtime.rebuild (
    requested_at timestamptz not null default now()
);
insert into realtime.rebuild default values;
