-- Collecting invoices: what is owed in whole cents, what was tried, what was given back, and how
-- a tenant stands. The ledger's transfers are posted in the transactions that write here.

-- How a tenant pays. Tenants without a row are invoiced, and nothing is collected.
create table billing.payers (
    tenant     text        primary key references billing.tenants,
    provider   text        not null check (provider in ('stripe', 'braintree')),
    customer   text        not null,
    method     text        not null,
    updated_at timestamptz not null
);

-- What of an invoice is collected: whole cents. What is left of a cent is carried to the tenant's
-- next invoice, so over all invoices cents and carried micro-dollars are exactly what was due.
create table billing.collections (
    tenant              text        not null,
    period              date        not null,
    due_microusd        bigint      not null check (due_microusd >= 0),
    carried_in_microusd bigint      not null check (carried_in_microusd between 0 and 9999),
    cents               bigint      not null check (cents >= 0),
    carried_microusd    bigint      not null check (carried_microusd between 0 and 9999),
    paid_cents          bigint      not null default 0 check (paid_cents >= 0),
    -- Since when it could not be collected: the first failure. Null: it was, or nothing has failed.
    failing_since       timestamptz,
    -- When it is tried next; null: not before something changes.
    next_try_at         timestamptz,
    primary key (tenant, period),
    foreign key (tenant, period) references billing.invoices,
    check (carried_in_microusd + due_microusd = cents * 10000 + carried_microusd)
);
create index collections_to_try on billing.collections (next_try_at) where next_try_at is not null;
create index collections_failing on billing.collections (tenant)
    where failing_since is not null;

-- In the transaction that issues the invoice: there is no invoice whose cents are not known. The
-- tenant's row is held, so that two months of one tenant do not carry the same remainder.
create function billing.collect_invoice() returns trigger language plpgsql as $$
declare
    carried bigint;
begin
    perform from billing.tenants t where t.tenant = new.tenant for no key update;
    select coalesce(sum(c.due_microusd) - sum(c.cents) * 10000, 0) into carried
    from billing.collections c where c.tenant = new.tenant;
    insert into billing.collections
        (tenant, period, due_microusd, carried_in_microusd, cents, carried_microusd, next_try_at)
    values (new.tenant, new.period, new.due_microusd, carried,
            (carried + new.due_microusd) / 10000, (carried + new.due_microusd) % 10000,
            case when carried + new.due_microusd >= 10000 then new.issued_at end);
    return null;
end $$;
create trigger collect after insert on billing.invoices
    for each row execute function billing.collect_invoice();

-- Attempts to collect. A row is committed before the provider hears of it.
create table billing.payments (
    payment_id    uuid        primary key,
    tenant        text        not null,
    period        date        not null,
    attempt       integer     not null check (attempt > 0),
    provider      text        not null check (provider in ('stripe', 'braintree')),
    customer      text        not null,
    method        text        not null,
    cents         bigint      not null check (cents > 0),
    status        text        not null check (status in ('started', 'pending', 'succeeded',
                                                         'failed')),
    -- The provider's id of what moves the money.
    reference     text,
    failure       text,
    started_at    timestamptz not null,
    -- Whose turn it is to ask the provider is settled by moving this forward.
    next_look_at  timestamptz,
    ended_at      timestamptz,
    unique (tenant, period, attempt),
    foreign key (tenant, period) references billing.collections
);
-- Never two attempts at once: the next one begins when the last one has failed.
create unique index payments_open on billing.payments (tenant, period)
    where status in ('started', 'pending');
create index payments_to_look_at on billing.payments (next_look_at)
    where next_look_at is not null;
create index payments_reference on billing.payments (provider, reference);

create table billing.refunds (
    refund_id    uuid        primary key,
    tenant       text        not null,
    payment_id   uuid        not null references billing.payments,
    cents        bigint      not null check (cents > 0),
    reason       text        not null,
    status       text        not null check (status in ('started', 'pending', 'succeeded',
                                                        'failed')),
    reference    text,
    started_at   timestamptz not null,
    next_look_at timestamptz,
    ended_at     timestamptz,
    unique (payment_id, reference)
);
create index refunds_reference on billing.refunds (reference);
create index refunds_to_look_at on billing.refunds (next_look_at) where next_look_at is not null;

-- How a tenant stands with its payments; no row: it never missed one.
create table billing.standings (
    tenant         text        primary key references billing.tenants,
    standing       text        not null check (standing in ('current', 'past_due', 'grace',
                                                            'suspended', 'restored')),
    failing_since  timestamptz,
    -- An operator's word: no suspension before that time.
    extended_until timestamptz,
    changed_at     timestamptz not null
);
