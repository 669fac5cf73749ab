-- Invoices: written once, in the transaction that closes their period, and never changed.

create table billing.invoices (
    tenant            text        not null,
    period            date        not null check (extract(day from period) = 1),
    number            text        not null unique,
    currency          text        not null default 'USD' check (currency = 'USD'),
    usage_microusd    bigint      not null check (usage_microusd >= 0),
    subtotal_microusd bigint      not null check (subtotal_microusd >= 0),
    credit_microusd   bigint      not null check (credit_microusd >= 0),
    due_microusd      bigint      not null check (due_microusd >= 0),
    -- All of the event log up to here is in it.
    events_seq        bigint      not null,
    issued_at         timestamptz not null,
    primary key (tenant, period),
    check (subtotal_microusd = credit_microusd + due_microusd)
);

create table billing.invoice_lines (
    tenant          text    not null,
    period          date    not null,
    line            integer not null check (line > 0),
    kind            text    not null check (kind in ('fee', 'usage', 'tiered', 'included',
                                                     'minimum', 'late', 'adjustment', 'credit')),
    description     text    not null,
    from_day        date    not null,
    to_day          date    not null check (to_day >= from_day),
    model           text,
    meter           text,
    quantity        bigint,
    unit_microusd   bigint,
    amount_microusd bigint  not null,
    primary key (tenant, period, line),
    foreign key (tenant, period) references billing.invoices
);

-- The lines of an invoice are written by one statement, and add up to what it says.
create function billing.invoice_adds_up() returns trigger language plpgsql as $$
begin
    if exists (
        select from billing.invoices i
        join (select l.tenant, l.period,
                     sum(l.amount_microusd) filter (where l.kind <> 'credit') as subtotal,
                     -sum(l.amount_microusd) filter (where l.kind = 'credit') as credit
              from added l group by l.tenant, l.period) as s using (tenant, period)
        where i.subtotal_microusd <> coalesce(s.subtotal, 0)
           or i.credit_microusd <> coalesce(s.credit, 0)
    ) then
        raise exception 'the lines of an invoice do not add up to it'
            using errcode = 'check_violation';
    end if;
    return null;
end $$;
create trigger adds_up after insert on billing.invoice_lines
    referencing new table as added
    for each statement execute function billing.invoice_adds_up();

create trigger append_only before update or delete or truncate on billing.invoices
    for each statement execute function billing.refuse_change();
create trigger append_only before update or delete or truncate on billing.invoice_lines
    for each statement execute function billing.refuse_change();

-- For whoever cuts a month: nothing is metered from here to the transaction's end.
create function billing.hold_metering() returns void language plpgsql
security definer set search_path = pg_catalog, pg_temp as $$
begin
    lock table billing.usage in share mode;
end $$;
revoke execute on function billing.invoice_adds_up(), billing.hold_metering() from public;
