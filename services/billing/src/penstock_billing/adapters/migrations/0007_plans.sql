-- Plans are versions that never change; what a tenant pays is in its subscriptions, a row for each
-- change, with the tenant's own terms merged in.

create table billing.plan_versions (
    plan         text not null,
    version      integer not null check (version > 0),
    terms        jsonb not null,
    published_at timestamptz not null,
    primary key (plan, version)
);
-- Of tenants to whom no plan was assigned, and to go back to.
insert into billing.plan_versions
values ('pay-as-you-go', 1, '{"title": "Pay as you go"}', '2026-01-01T00:00:00Z');

create trigger append_only before update or delete or truncate on billing.plan_versions
    for each statement execute function billing.refuse_change();

create table billing.subscriptions (
    tenant      text not null references billing.tenants,
    from_day    date not null,
    plan        text not null,
    version     integer not null,
    terms       jsonb not null,
    assigned_at timestamptz not null,
    primary key (tenant, from_day),
    foreign key (plan, version) references billing.plan_versions
);

-- The terms that hold on a day, with all defaults written out; null: the tenant pays as it goes.
create function billing.terms_on(of_tenant text, on_day date) returns jsonb
language sql stable as $$
    select s.terms from billing.subscriptions s
    where s.tenant = of_tenant and s.from_day <= on_day
    order by s.from_day desc limit 1
$$;

-- Whoever assigns a plan holds the tenant's row: no month begins to close before it is stored, and
-- what begins after that sees it.
create function billing.wait_for_plans() returns trigger language plpgsql
security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform from billing.tenants where tenant = new.tenant for key share;
    return new;
end $$;
create trigger wait_for_plans before insert on billing.periods
    for each row execute function billing.wait_for_plans();

-- What the bucket `prices` must hold of a tenant, to the letter.
create table billing.tenant_prices (
    tenant text primary key references billing.tenants,
    record text not null
);

alter table billing.tenants add column limited_from date;

alter table billing.outbox
    drop constraint outbox_kind_check,
    add constraint outbox_kind_check check (kind in ('tenant', 'key', 'prices', 'fact'));

revoke execute on function billing.wait_for_plans(), billing.terms_on(text, date) from public;
