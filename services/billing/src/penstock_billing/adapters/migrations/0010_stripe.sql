-- What Stripe knows of us, what it was told of usage, and what payment providers have told us.

-- One for the whole platform each: the meter, and the price of one of its units.
create table billing.stripe_catalogue (
    name      text primary key check (name in ('meter', 'price')),
    stripe_id text not null
);

-- Written before the customer is made: whoever dies in between makes the same one, under the same
-- idempotency key, or looks for it where that key may have been forgotten.
create table billing.stripe_customers (
    tenant          text primary key references billing.tenants,
    begun_at        timestamptz not null,
    customer_id     text unique,
    told_name       text,
    subscription_id text unique check (subscription_id is null or customer_id is not null),
    -- Usage of the months that end after it is told to the meter; what came before, in items.
    subscribed_at   timestamptz check ((subscribed_at is null) = (subscription_id is null))
);

-- Usage of a month, in cents, as it was told to Stripe's meter. A row is written before anything is
-- sent, and its identifier (tenant, period, number) is what makes sending it twice one event. One
-- row at a time of a tenant and period is without an end, so what Stripe's sums say of it is never
-- ambiguous.
create table billing.meter_pushes (
    tenant        text        not null,
    period        date        not null check (extract(day from period) = 1),
    number        integer     not null check (number > 0),
    cents         bigint      not null check (cents > 0),
    customer_id   text        not null,
    -- The time of use that Stripe is told: within the period.
    used_at       timestamptz not null,
    first_sent_at timestamptz,
    ended_at      timestamptz,
    -- accepted: answered 2xx. duplicate: Stripe had it. summed: found in the meter's sums. absent:
    -- not found there. refused: Stripe will not have it. Of the last two another row, or an item of
    -- the invoice, has the cents.
    outcome       text check (outcome in ('accepted', 'duplicate', 'summed', 'absent', 'refused')),
    check ((ended_at is null) = (outcome is null)),
    primary key (tenant, period, number)
);
create unique index meter_pushes_open on billing.meter_pushes (tenant, period)
    where ended_at is null;

-- Their sums: what a look costs does not grow with the pushes before it, one a minute and tenant.
create table billing.meter_totals (
    tenant  text    not null,
    period  date    not null,
    last    integer not null,
    -- Of what the meter has, or may have: without what is absent or was refused.
    cents   bigint  not null,
    refused integer not null,
    primary key (tenant, period)
);
create function billing.count_push() returns trigger language plpgsql as $$
declare
    counted bigint := case when coalesce(new.outcome, '') in ('absent', 'refused') then 0
                           else new.cents end;
    refused integer := (coalesce(new.outcome, '') = 'refused')::integer;
begin
    if tg_op = 'UPDATE' then
        counted := counted - case when coalesce(old.outcome, '') in ('absent', 'refused') then 0
                                  else old.cents end;
        refused := refused - (coalesce(old.outcome, '') = 'refused')::integer;
    end if;
    insert into billing.meter_totals as t (tenant, period, last, cents, refused)
    values (new.tenant, new.period, new.number, counted, refused)
    on conflict (tenant, period) do update set
        last = greatest(t.last, excluded.last), cents = t.cents + excluded.cents,
        refused = t.refused + excluded.refused;
    return null;
end $$;
create trigger count after insert or update of outcome on billing.meter_pushes
    for each row execute function billing.count_push();

-- Months of which nothing is collected, whose draft at Stripe was brought to nothing and closed: it
-- would ask for what credits have paid.
create table billing.stripe_empty_months (
    tenant text not null,
    period date not null,
    primary key (tenant, period)
);

-- What providers have told us, each once, and only that: what it is about is read from the
-- provider again before anything is done.
create table billing.notices (
    provider    text        not null,
    notice_id   text        not null,
    kind        text        not null,
    reference   text,
    at          timestamptz not null,
    received_at timestamptz not null,
    -- SHA-256 of each delivery's signature: the same one again is a replay, not another delivery.
    signatures  text[]      not null,
    attempts    integer     not null default 0,
    due_at      timestamptz not null,
    done_at     timestamptz,
    -- parked: failed too often, and waits for a person.
    outcome     text check (outcome in ('done', 'parked')),
    check ((done_at is null) = (outcome is null)),
    primary key (provider, notice_id)
);
create index notices_due on billing.notices (due_at) where done_at is null;
create index notices_done on billing.notices (done_at) where done_at is not null;
