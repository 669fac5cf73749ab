-- Quotas (I4): what was used and what is reserved, to the token. Routers reserve before they admit
-- a request; the statement that meters an attempt settles it. What an attempt uses counts on the
-- UTC day on which its request was accepted, whenever it ends: so every sum here is a function of
-- the facts alone.
--
-- Whoever changes a tenant's sums holds its lock (billing.lock_quotas), and looks only after it
-- has it. Locks are taken in this order, so nobody deadlocks: billing.tenants, billing.usage,
-- the tenants' locks.
--
-- A lateral join with a limit looks each row up by its key, whatever the planner thinks: it knows
-- nothing of tables that have just been filled, and reading all of one costs more than all the
-- rest.

alter table billing.tenants add column quotas jsonb not null default '[]';

-- Null where a release without quotas has metered it: then it is the day of its end.
alter table billing.usage add column accepted_on date;

-- Null: asked for. Else: it goes on until EVENTS has been read up to here, and nothing is reserved
-- before that.
alter table billing.rebuild add column until_seq bigint;

create table billing.reservations (
    tenant       text        not null,
    request_id   uuid        not null,
    attempt      integer     not null check (attempt > 0),
    tokens       bigint      not null check (tokens >= 0),
    microusd     bigint      not null check (microusd >= 0),
    -- What it takes to end a request that was never routed.
    model        text        not null,
    key_id       text        not null,
    data_subject text        not null,
    input_microusd_per_1k  bigint not null,
    output_microusd_per_1k bigint not null,
    accepted_at  timestamptz not null,
    deadline     timestamptz not null,
    accepted_on  date        not null
        generated always as ((accepted_at at time zone 'UTC')::date) stored,
    -- With the day: who asks again after midnight with the same request needs room in both days
    -- until it is known under which of them it was routed.
    primary key (tenant, request_id, attempt, accepted_on)
);
create index reservations_deadline on billing.reservations (deadline, tenant, request_id)
    where attempt = 1;

-- Of every tenant that has, or once had, a quota. Sums may be larger than any number that is added.
create table billing.quota_use (
    tenant   text    not null,
    day      date    not null,
    unit     text    not null check (unit in ('requests', 'tokens', 'microusd')),
    settled  numeric not null default 0 check (settled >= 0),
    reserved numeric not null default 0 check (reserved >= 0),
    primary key (tenant, day, unit)
) with (fillfactor = 50);  -- room for the next version of a row beside it: no index changes

-- 128 locks for all tenants: a batch may hold any number of them, and the server's lock table is
-- small. Always in the same order.
create function billing.lock_quotas(of_tenants text[]) returns void language plpgsql as $$
declare
    place integer;
begin
    for place in
        select distinct hashtext(tenant) & 127 from unnest(of_tenants) as t (tenant) order by 1
    loop
        perform pg_advisory_xact_lock(hashtext('penstock.quotas'), place);
    end loop;
end $$;

-- How a tenant's quotas stand in the periods that hold a day.
create function billing.quota_state(of_tenant text, on_day date)
returns table (unit text, period text, most bigint, settled numeric, reserved numeric)
language sql stable as $$
    select q.unit, q.period, q."limit", coalesce(sum(u.settled), 0), coalesce(sum(u.reserved), 0)
    from billing.tenants t
    cross join lateral jsonb_to_recordset(t.quotas) as q (unit text, period text, "limit" bigint)
    left join billing.quota_use u
        on u.tenant = t.tenant and u.unit = q.unit
       and u.day >= date_trunc(q.period, on_day::timestamp)::date
       and u.day < (date_trunc(q.period, on_day::timestamp) + ('1 ' || q.period)::interval)::date
    where t.tenant = of_tenant
    group by q.unit, q.period, q."limit"
    order by q.unit, q.period
$$;

-- Write the reservations among `wanted` that belong to `requests`, and count them. One that is
-- there already grows to what is wanted now, and never shrinks: either of the two may be routed.
create function billing.hold(of_tenant text, on_day date, wanted jsonb, requests uuid[])
returns void language plpgsql as $$
begin
    insert into billing.quota_use (tenant, day, unit)
    values (of_tenant, on_day, 'requests'), (of_tenant, on_day, 'tokens'),
           (of_tenant, on_day, 'microusd')
    on conflict do nothing;
    with before as (
        select r.attempt, r.tokens, r.microusd
        from jsonb_populate_recordset(null::billing.reservations, wanted) as w
        cross join lateral (
            select h.attempt, h.tokens, h.microusd from billing.reservations h
            where h.tenant = of_tenant and h.request_id = w.request_id
              and h.attempt = w.attempt and h.accepted_on = on_day limit 1) r
        where w.request_id = any (requests)
    ), held as (
        insert into billing.reservations as r
            (tenant, request_id, attempt, tokens, microusd, model, key_id, data_subject,
             input_microusd_per_1k, output_microusd_per_1k, accepted_at, deadline)
        select of_tenant, request_id, attempt, tokens, microusd, model, key_id, data_subject,
               input_microusd_per_1k, output_microusd_per_1k, accepted_at, deadline
        from jsonb_populate_recordset(null::billing.reservations, wanted)
        where request_id = any (requests)
        on conflict (tenant, request_id, attempt, accepted_on) do update
            set tokens = greatest(r.tokens, excluded.tokens),
                microusd = greatest(r.microusd, excluded.microusd),
                deadline = greatest(r.deadline, excluded.deadline)
        returning r.attempt, r.tokens, r.microusd
    ), change as (
        select attempt, tokens::numeric, microusd::numeric, 1 as sign from held
        union all
        select attempt, tokens, microusd, -1 from before
    )
    update billing.quota_use u set reserved = u.reserved + added.amount
    from (
        select v.unit, sum(v.amount * c.sign) as amount
        from change c cross join lateral (values
            ('requests', (c.attempt = 1)::int::numeric), ('tokens', c.tokens),
            ('microusd', c.microusd)) as v (unit, amount)
        group by v.unit
    ) as added
    where u.tenant = of_tenant and u.day = on_day and u.unit = added.unit;
end $$;

-- For routers: reserve for every request in `asked`, as far as it fits into all quotas of its
-- tenant; returns those that do not, each with every quota that is in the way. `asked` is a list
-- of {tenant, day, wanted: [reservations]} with each request once. Asking again changes nothing,
-- and a request of which usage is known needs no reservation any more.
create function billing.reserve(asked jsonb)
returns table (tenant text, request_id uuid, unit text, period text, most bigint,
               settled numeric, reserved numeric, needed numeric)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    place     record;
    one       record;
    units     text[];
    periods   text[];
    mosts     bigint[];
    settleds  numeric[];
    reserveds numeric[];
    needs     numeric[];
    fits      boolean;
    granted   uuid[];
begin
    lock table billing.usage in access share mode;  -- it is not emptied while this goes on
    perform billing.lock_quotas(array(
        select p.tenant from jsonb_to_recordset(asked) as p (tenant text)));
    if exists (select from billing.rebuild) then
        raise exception 'usage is being read from the event log again'
            using errcode = 'object_not_in_prerequisite_state';
    end if;
    for place in
        select p.tenant, p.day, p.wanted
        from jsonb_to_recordset(asked) as p (tenant text, day date, wanted jsonb) order by 1, 2
    loop
        select array_agg(s.unit), array_agg(s.period), array_agg(s.most),
               array_agg(s.settled), array_agg(s.reserved)
        into units, periods, mosts, settleds, reserveds
        from billing.quota_state(place.tenant, place.day) s;
        continue when units is null;  -- they were lifted
        granted := '{}';
        for one in
            select w.request_id, bool_and(r.attempt is null)::int::numeric as requests,
                   sum(greatest(w.tokens - coalesce(r.tokens, 0), 0)) as tokens,
                   sum(greatest(w.microusd - coalesce(r.microusd, 0), 0)) as microusd
            from jsonb_populate_recordset(null::billing.reservations, place.wanted)
                with ordinality as w
            left join lateral (
                select h.attempt, h.tokens, h.microusd from billing.reservations h
                where h.tenant = place.tenant and h.request_id = w.request_id
                  and h.attempt = w.attempt and h.accepted_on = place.day limit 1) r on true
            left join lateral (
                select u.attempt from billing.usage u
                where u.tenant = place.tenant and u.request_id = w.request_id limit 1) known on true
            where known.attempt is null
            group by w.request_id order by min(w.ordinality)
        loop
            needs := array(
                select case u when 'requests' then one.requests when 'tokens' then one.tokens
                              else one.microusd end
                from unnest(units) with ordinality as t (u, n) order by n);
            fits := true;
            for n in 1 .. cardinality(units) loop
                if needs[n] > 0 and settleds[n] + reserveds[n] + needs[n] > mosts[n] then
                    fits := false;
                    tenant := place.tenant;
                    request_id := one.request_id;
                    unit := units[n];
                    period := periods[n];
                    most := mosts[n];
                    settled := settleds[n];
                    reserved := reserveds[n];
                    needed := needs[n];
                    return next;
                end if;
            end loop;
            if fits then
                granted := granted || one.request_id;
                for n in 1 .. cardinality(units) loop
                    reserveds[n] := reserveds[n] + needs[n];
                end loop;
            end if;
        end loop;
        if granted <> '{}' then
            perform billing.hold(place.tenant, place.day, place.wanted, granted);
        end if;
    end loop;
end $$;

-- For billing: the reservations that `routed` facts tell of, where the database has lost them: of
-- requests that have none, for the attempts that are not over yet as far as is known.
create function billing.restore(asked jsonb) returns void language plpgsql as $$
declare
    place record;
begin
    perform billing.lock_quotas(array(
        select p.tenant from jsonb_to_recordset(asked) as p (tenant text)));
    for place in
        select p.tenant, p.day, l.lost, l.requests
        from jsonb_to_recordset(asked) as p (tenant text, day date, wanted jsonb)
        cross join lateral (
            select jsonb_agg(to_jsonb(w)) as lost, array_agg(w.request_id) as requests
            from jsonb_populate_recordset(null::billing.reservations, p.wanted) as w
            left join lateral (
                select h.attempt from billing.reservations h
                where h.tenant = p.tenant and h.request_id = w.request_id limit 1) r on true
            left join lateral (
                select u.attempt from billing.usage u
                where u.tenant = p.tenant and u.request_id = w.request_id
                  and (u.attempt >= w.attempt or u.status <> 'attempt_failed') limit 1) e on true
            where r.attempt is null and e.attempt is null) as l
        where l.lost is not null
          and exists (select from billing.quota_use q where q.tenant = p.tenant)
    loop
        perform billing.hold(place.tenant, place.day, place.lost, place.requests);
    end loop;
end $$;

-- For routers: requests whose reservation has outlived their deadline, a page after the last one.
create function billing.overdue_reservations(
    before timestamptz, after_deadline timestamptz, after_tenant text, after_request uuid,
    page integer)
returns table (tenant text, request_id uuid, key_id text, data_subject text, model text,
               input_microusd_per_1k bigint, output_microusd_per_1k bigint,
               accepted_at timestamptz, deadline timestamptz)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select r.tenant, r.request_id, r.key_id, r.data_subject, r.model,
           r.input_microusd_per_1k, r.output_microusd_per_1k, r.accepted_at, r.deadline
    from billing.reservations r
    where r.attempt = 1 and r.deadline < before
      and (r.deadline, r.tenant, r.request_id) > (after_deadline, after_tenant, after_request)
    order by r.deadline, r.tenant, r.request_id limit page
$$;

-- Settlement is part of the statement that meters, whoever runs it: what an attempt used takes the
-- place of what was reserved for it. The end of a request also releases the attempts that it no
-- longer needs; those before it keep their reservations until their own facts have been read.
create function billing.settle() returns trigger language plpgsql as $$
declare
    counted text[] := array(
        select distinct a.tenant from added a
        where exists (select from billing.quota_use u where u.tenant = a.tenant));
begin
    if counted = '{}' then
        return null;
    end if;
    perform billing.lock_quotas(counted);
    insert into billing.quota_use (tenant, day, unit)
    select distinct a.tenant, coalesce(a.accepted_on, (a.ended_at at time zone 'UTC')::date), u.unit
    from added a cross join (values ('requests'), ('tokens'), ('microusd')) as u (unit)
    where a.tenant = any (counted)
    on conflict do nothing;
    with ended as (
        delete from billing.reservations r using added a
        where a.tenant = any (counted) and r.tenant = a.tenant and r.request_id = a.request_id
          and (r.attempt = a.attempt or (a.status <> 'attempt_failed' and r.attempt > a.attempt))
        returning r.tenant, r.accepted_on as day, r.attempt, r.tokens::numeric, r.microusd::numeric
    ), change as (
        select a.tenant, coalesce(a.accepted_on, (a.ended_at at time zone 'UTC')::date) as day,
               v.unit, v.amount as settled, 0::numeric as released
        from added a cross join lateral (values
            ('requests', (a.attempt = 1)::int::numeric),
            ('tokens', a.input_tokens::numeric + a.output_tokens),
            ('microusd', a.cost_microusd::numeric)) as v (unit, amount)
        where a.tenant = any (counted)
        union all
        select e.tenant, e.day, v.unit, 0, v.amount
        from ended e cross join lateral (values
            ('requests', (e.attempt = 1)::int::numeric), ('tokens', e.tokens),
            ('microusd', e.microusd)) as v (unit, amount)
    )
    update billing.quota_use u
    set settled = u.settled + c.settled, reserved = u.reserved - c.released
    from (
        select tenant, day, unit, sum(settled) as settled, sum(released) as released
        from change group by tenant, day, unit
    ) as c
    where u.tenant = c.tenant and u.day = c.day and u.unit = c.unit;
    return null;
end $$;
create trigger settle after insert on billing.usage
    referencing new table as added for each statement execute function billing.settle();

-- Usage that is gone has to be read again, and until then nobody knows what is left of a quota.
create function billing.usage_emptied() returns trigger language plpgsql as $$
begin
    update billing.quota_use set settled = 0;
    insert into billing.rebuild default values;
    return null;
end $$;
create trigger emptied after truncate on billing.usage
    for each statement execute function billing.usage_emptied();

-- A tenant's sums from a day on, from the rows that they sum up: when its first quota is set, what
-- was used before counts. Nothing is metered meanwhile. From then on it is counted for good.
create function billing.recount(of_tenant text, since date) returns void language plpgsql as $$
begin
    if exists (select from billing.quota_use where tenant = of_tenant) then
        return;
    end if;
    lock table billing.usage in share mode;
    perform billing.lock_quotas(array[of_tenant]);
    insert into billing.quota_use (tenant, day, unit, settled)
    select of_tenant, d.day, v.unit, v.amount
    from (
        select coalesce(a.accepted_on, (a.ended_at at time zone 'UTC')::date) as day,
               count(*) filter (where a.attempt = 1) as requests,
               sum(a.input_tokens) + sum(a.output_tokens) as tokens,
               sum(a.cost_microusd) as microusd
        from billing.usage a where a.tenant = of_tenant group by 1
    ) as d
    cross join lateral (values
        ('requests', d.requests), ('tokens', d.tokens),
        ('microusd', d.microusd)) as v (unit, amount)
    where d.day >= since;
    insert into billing.quota_use (tenant, day, unit)  -- a tenant is counted once it has rows
    values (of_tenant, since, 'requests'), (of_tenant, since, 'tokens'),
           (of_tenant, since, 'microusd')
    on conflict do nothing;
end $$;

-- A router's own role needs USAGE on the schema, and EXECUTE on billing.reserve and
-- billing.overdue_reservations: nothing else of billing's is its to see.
revoke execute on all functions in schema billing from public;
