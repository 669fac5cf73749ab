-- The ledger, and the sums that invoices, previews and usage queries read (ADR 0024).
--
-- The time of usage is when its request was accepted: its price was fixed then, and it counts in
-- the quotas of that day. It belongs to the month of that time, or, if that month was closed
-- before its fact was written, to the first that was not. "Before" is decided by the sequence of
-- the event log, never by a clock: so what a month holds is a function of the log and of the cuts.

-- The defaults let the release before this one go on writing; a rebuild puts right what it wrote.
alter table billing.usage
    add column kind                text        not null default 'text',
    add column cached_input_tokens bigint      not null default 0
                                   check (cached_input_tokens between 0 and input_tokens),
    add column tool_calls          bigint      not null default 0 check (tool_calls >= 0),
    add column data_subject        text        not null default '',
    add column accepted_at         timestamptz not null default now(),
    add column period              date        not null
                                   default date_trunc('month', now() at time zone 'UTC')::date;

-- A month of a tenant that is closed, or being closed. Facts beyond the cut do not belong to it.
-- Whoever cuts calls billing.hold_metering(), which locks billing.usage in share mode, and reads
-- the last sequence of EVENTS only after that: then every fact that was metered without a look at
-- the cut is within it, and all others see it.
create table billing.periods (
    tenant    text        not null,
    period    date        not null check (extract(day from period) = 1),
    status    text        not null check (status in ('closing', 'closed')),
    cut_seq   bigint      not null check (cut_seq >= 0),
    cut_at    timestamptz not null,
    closed_at timestamptz,
    primary key (tenant, period),
    check ((status = 'closed') = (closed_at is not null))
);

-- Every batch that is metered asks for the last of all.
create index periods_period on billing.periods (period);

-- A cut stays where it is, and what is closed stays closed.
create function billing.keep_period() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' or (new.tenant, new.period, new.cut_seq)
            is distinct from (old.tenant, old.period, old.cut_seq)
        or (old.status = 'closed' and new.status <> 'closed') then
        raise exception 'a period that was cut stays cut' using errcode = 'restrict_violation';
    end if;
    return new;
end $$;
create trigger kept before update or delete on billing.periods
    for each row execute function billing.keep_period();

-- Sums of usage. `requests` are first attempts that used anything: what a price for requests is
-- for. Of a retry only its tokens, calls and cost count.
create table billing.usage_days (
    tenant              text   not null,
    period              date   not null,  -- to which it belongs
    day                 date   not null,  -- of acceptance, in UTC; earlier than the period: late
    kind                text   not null,
    model               text   not null,
    requests            bigint not null,
    input_tokens        bigint not null,  -- cached ones included
    cached_input_tokens bigint not null,
    output_tokens       bigint not null,
    tool_calls          bigint not null,
    cost_microusd       bigint not null,
    primary key (tenant, period, day, kind, model)
) with (fillfactor = 50);  -- room for the next version of a row beside it: no index changes

create table billing.usage_minutes (
    tenant              text        not null,
    minute              timestamptz not null,  -- of acceptance
    kind                text        not null,
    model               text        not null,
    key_id              text        not null,
    requests            bigint      not null,
    input_tokens        bigint      not null,
    cached_input_tokens bigint      not null,
    output_tokens       bigint      not null,
    tool_calls          bigint      not null,
    cost_microusd       bigint      not null,
    primary key (tenant, minute, kind, model, key_id)
) with (fillfactor = 70);

create table billing.usage_users (
    tenant              text   not null,
    day                 date   not null,  -- of acceptance, in UTC
    kind                text   not null,
    model               text   not null,
    key_id              text   not null,
    data_subject        text   not null,
    requests            bigint not null,
    input_tokens        bigint not null,
    cached_input_tokens bigint not null,
    output_tokens       bigint not null,
    tool_calls          bigint not null,
    cost_microusd       bigint not null,
    primary key (tenant, day, kind, model, key_id, data_subject)
) with (fillfactor = 70);

-- Ids that ascend with time (RFC 9562, version 7): a random one would touch a page of its own in
-- an index that grows for ever.
create function billing.new_id() returns uuid language sql volatile
set search_path = pg_catalog, pg_temp as $$
    select encode(set_bit(set_bit(overlay(
        uuid_send(gen_random_uuid())
        placing substring(int8send(floor(extract(epoch from clock_timestamp()) * 1000)::bigint)
                          from 3) from 1 for 6), 52, 1), 53, 1), 'hex')::uuid
$$;

-- The ledger. A row moves one amount from one account to another, so there is no way to write one
-- half of it, and the accounts of any set of rows balance. Rows are never changed: a mistake is
-- put right by another row.
create table billing.transfers (
    id        uuid        primary key default billing.new_id(),
    tenant    text        not null,
    period    date        not null check (extract(day from period) = 1),
    kind      text        not null check (kind <> ''),
    debit     text        not null,
    credit    text        not null,
    microusd  bigint      not null check (microusd > 0),
    currency  text        not null default 'USD' check (currency = 'USD'),
    reference text        not null,
    at        timestamptz not null default now(),
    check (debit <> credit),
    check (debit in ('receivable', 'usage', 'adjustments', 'credits', 'payments',
                     'reservations', 'commitments')),
    check (credit in ('receivable', 'usage', 'adjustments', 'credits', 'payments',
                      'reservations', 'commitments'))
);
create index transfers_tenant on billing.transfers (tenant, period);

-- What stands on each account. Sums may be larger than any amount.
create table billing.balances (
    tenant  text    not null,
    period  date    not null,
    account text    not null,
    debit   numeric not null check (debit >= 0),
    credit  numeric not null check (credit >= 0),
    primary key (tenant, period, account)
) with (fillfactor = 50);

create function billing.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'billing.% is only ever added to', tg_table_name
        using errcode = 'restrict_violation';
end $$;
create trigger append_only before update or delete or truncate on billing.transfers
    for each statement execute function billing.refuse_change();

-- Accounts in order, so that two who post wait for each other instead of deadlocking.
create function billing.carry_balances() returns trigger language plpgsql
security definer set search_path = pg_catalog, pg_temp as $$
begin
    insert into billing.balances as b (tenant, period, account, debit, credit)
    select t.tenant, t.period, side.account, sum(side.debit), sum(side.credit)
    from posted t
    cross join lateral (values
        (t.debit, t.microusd::numeric, 0::numeric),
        (t.credit, 0, t.microusd)) as side (account, debit, credit)
    group by 1, 2, 3 order by 1, 2, 3
    on conflict (tenant, period, account) do update
        set debit = b.debit + excluded.debit, credit = b.credit + excluded.credit;
    return null;
end $$;
create trigger carry after insert on billing.transfers
    referencing new table as posted for each statement execute function billing.carry_balances();

-- Part of the statement that meters, whoever runs it, as settling quotas is: sums and ledger hold
-- what the rows hold, or the statement never was. Named to fire after `settle`: quotas are locked
-- before sums.
create function billing.sum_up() returns trigger language plpgsql
security definer set search_path = pg_catalog, pg_temp as $$
begin
    insert into billing.usage_days as d
    select tenant, period, (accepted_at at time zone 'UTC')::date, kind, model,
           count(*) filter (where attempt = 1 and input_tokens + output_tokens + tool_calls > 0),
           sum(input_tokens), sum(cached_input_tokens), sum(output_tokens), sum(tool_calls),
           sum(cost_microusd)
    from added group by 1, 2, 3, 4, 5 order by 1, 2, 3, 4, 5
    on conflict (tenant, period, day, kind, model) do update
        set requests = d.requests + excluded.requests,
            input_tokens = d.input_tokens + excluded.input_tokens,
            cached_input_tokens = d.cached_input_tokens + excluded.cached_input_tokens,
            output_tokens = d.output_tokens + excluded.output_tokens,
            tool_calls = d.tool_calls + excluded.tool_calls,
            cost_microusd = d.cost_microusd + excluded.cost_microusd;
    insert into billing.usage_minutes as m
    select tenant, date_trunc('minute', accepted_at, 'UTC'), kind, model, key_id,
           count(*) filter (where attempt = 1 and input_tokens + output_tokens + tool_calls > 0),
           sum(input_tokens), sum(cached_input_tokens), sum(output_tokens), sum(tool_calls),
           sum(cost_microusd)
    from added group by 1, 2, 3, 4, 5 order by 1, 2, 3, 4, 5
    on conflict (tenant, minute, kind, model, key_id) do update
        set requests = m.requests + excluded.requests,
            input_tokens = m.input_tokens + excluded.input_tokens,
            cached_input_tokens = m.cached_input_tokens + excluded.cached_input_tokens,
            output_tokens = m.output_tokens + excluded.output_tokens,
            tool_calls = m.tool_calls + excluded.tool_calls,
            cost_microusd = m.cost_microusd + excluded.cost_microusd;
    insert into billing.usage_users as u
    select tenant, (accepted_at at time zone 'UTC')::date, kind, model, key_id, data_subject,
           count(*) filter (where attempt = 1 and input_tokens + output_tokens + tool_calls > 0),
           sum(input_tokens), sum(cached_input_tokens), sum(output_tokens), sum(tool_calls),
           sum(cost_microusd)
    from added group by 1, 2, 3, 4, 5, 6 order by 1, 2, 3, 4, 5, 6
    on conflict (tenant, day, kind, model, key_id, data_subject) do update
        set requests = u.requests + excluded.requests,
            input_tokens = u.input_tokens + excluded.input_tokens,
            cached_input_tokens = u.cached_input_tokens + excluded.cached_input_tokens,
            output_tokens = u.output_tokens + excluded.output_tokens,
            tool_calls = u.tool_calls + excluded.tool_calls,
            cost_microusd = u.cost_microusd + excluded.cost_microusd;
    insert into billing.transfers (tenant, period, kind, debit, credit, microusd, reference)
    select tenant, period, 'usage', 'receivable', 'usage', sum(cost_microusd),
           'events ' || min(event_seq) || '-' || max(event_seq)
    from added where cost_microusd > 0 group by 1, 2;
    return null;
end $$;
create trigger sum_up after insert on billing.usage
    referencing new table as added for each statement execute function billing.sum_up();

-- What the rows had posted is taken back by further transfers; reading the log again posts anew.
create function billing.sums_emptied() returns trigger language plpgsql
security definer set search_path = pg_catalog, pg_temp as $$
begin
    insert into billing.transfers (tenant, period, kind, debit, credit, microusd, reference)
    select tenant, period, 'usage-reversed', 'usage', 'receivable', sum(cost_microusd),
           'read again'
    from billing.usage_days group by 1, 2 having sum(cost_microusd) > 0;
    truncate billing.usage_days, billing.usage_minutes, billing.usage_users;
    return null;
end $$;
create trigger sums_emptied after truncate on billing.usage
    for each statement execute function billing.sums_emptied();

-- What was metered before there were sums is read again. The old rows are kept: should the log have
-- lost some of it, nothing else tells. Whoever has seen that it has not may drop them.
do $$
begin
    if exists (select from billing.usage) then
        create table billing.usage_before_ledger as table billing.usage;
        truncate billing.usage;
    end if;
end $$;

revoke execute on all functions in schema billing from public;
