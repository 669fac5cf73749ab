-- Credit, and what plans limit: reserved like quotas (ADR 26). Soft quotas; thresholds; why a tenant
-- is suspended.
--
-- What a function of 0005 did, its successor here does, too. Locks are taken in the same order.

alter table billing.tenants
    add column suspended_reason text check (suspended_reason in ('operator', 'past_due'));
update billing.tenants set suspended_reason = 'operator' where status = 'suspended';

create table billing.grants (
    grant_id   uuid        primary key,
    tenant     text        not null references billing.tenants,
    kind       text        not null check (kind in ('prepaid', 'promotional')),
    microusd   bigint      not null check (microusd > 0),
    -- By invoices and by expiry: the sum of its uses.
    used       bigint      not null default 0 check (used between 0 and microusd),
    priority   integer     not null,
    expires_on date,
    reference  text        not null,
    granted_at timestamptz not null,
    unique (tenant, reference)
);
create index grants_left on billing.grants (tenant) where used < microusd;

create table billing.grant_uses (
    grant_id uuid   not null references billing.grants,
    tenant   text   not null,
    -- Of the invoice that it pays, or at whose closing it was gone.
    period   date   not null check (extract(day from period) = 1),
    kind     text   not null check (kind in ('paid', 'expired')),
    microusd bigint not null check (microusd > 0),
    primary key (grant_id, period, kind)
);
create trigger append_only before update or delete or truncate on billing.grant_uses
    for each statement execute function billing.refuse_change();

create function billing.use_grants() returns trigger language plpgsql
security definer set search_path = pg_catalog, pg_temp as $$
begin
    update billing.grants g set used = g.used + a.microusd
    from (select grant_id, sum(microusd) as microusd from added group by 1) as a
    where g.grant_id = a.grant_id;
    return null;
end $$;
create trigger use_grants after insert on billing.grant_uses
    referencing new table as added for each statement execute function billing.use_grants();

-- An operator's corrections of what a tenant owes.
create table billing.adjustments (
    adjustment_id uuid        primary key,
    tenant        text        not null references billing.tenants,
    -- Of the invoice on which it will be.
    period        date        not null check (extract(day from period) = 1),
    microusd      bigint      not null check (microusd <> 0),
    reason        text        not null,
    reference     text        not null,
    made_at       timestamptz not null,
    unique (tenant, reference)
);
create index adjustments_period on billing.adjustments (tenant, period);
create trigger append_only before update or delete or truncate on billing.adjustments
    for each statement execute function billing.refuse_change();

-- Days of which something was settled since the thresholds were last looked at. Written and deleted
-- under the tenant's lock.
create table billing.quota_moved (
    tenant text not null,
    day    date not null,
    primary key (tenant, day)
);

-- Thresholds that were reached, each told once: of another limit, or the next period, anew.
create table billing.quota_alerts (
    tenant     text        not null,
    unit       text        not null,
    period     text        not null,
    begins_on  date        not null,
    most       bigint      not null,
    soft       boolean     not null,
    percent    integer     not null,
    reached_at timestamptz not null,
    primary key (tenant, unit, period, begins_on, most, soft, percent)
);

-- How a tenant's quotas stand in the periods that hold a day: its own, and those of its plan.
drop function billing.quota_state(text, date);
create function billing.quota_state(of_tenant text, on_day date)
returns table (unit text, period text, most bigint, soft boolean,
               settled numeric, reserved numeric)
language sql stable as $$
    select q.unit, q.period, q."limit", q.soft,
           coalesce(sum(u.settled), 0), coalesce(sum(u.reserved), 0)
    from billing.tenants t
    cross join lateral (
        select distinct r.unit, r.period, r."limit", coalesce(r.soft, false) as soft
        from jsonb_to_recordset(t.quotas || case when t.limited_from <= on_day
            then coalesce(billing.terms_on(of_tenant, on_day) -> 'quotas', '[]') else '[]' end)
            as r (unit text, period text, "limit" bigint, soft boolean)) as q
    left join billing.quota_use u
        on u.tenant = t.tenant and u.unit = q.unit
       and u.day >= date_trunc(q.period, on_day::timestamp)::date
       and u.day < (date_trunc(q.period, on_day::timestamp) + ('1 ' || q.period)::interval)::date
    where t.tenant = of_tenant
    group by q.unit, q.period, q."limit", q.soft
    order by q.unit, q.period, q.soft
$$;

-- What a tenant's plans include in a month, as invoices prorate it: each amount by the difference
-- of what is due up to the end of its days and up to their beginning, both rounded down.
create function billing.included_in(of_tenant text, month date) returns numeric
language sql stable as $$
    with ahead as (select (month + interval '1 month')::date as month),
    plans as (
        select (s.terms ->> 'included_microusd')::numeric as included,
               greatest(s.from_day, included_in.month) - included_in.month as before,
               lead(s.from_day, 1, ahead.month) over (order by s.from_day)
                   - included_in.month as through,
               ahead.month - included_in.month as days
        from billing.subscriptions s, ahead
        where s.tenant = of_tenant and s.from_day < ahead.month
    )
    select coalesce(sum(div(included * through, days) - div(included * before, days)), 0)
    from plans where through > 0
$$;

-- How far a prepaid tenant may go on a day; no row for all others. A grant pays for what is accepted
-- on or before its last day; what a plan includes, for what its month still takes in. So of all that
-- is used from a day on no more can be paid than the months include, and than the grants have left
-- that live on that day (Hall's condition for these nested sets). Between two expiries the first day
-- counts, so only those behind an expiry are looked at; the one that leaves least room is the
-- answer. Months that are closed have taken their part of the grants already. On the days of a month
-- that was cut nothing is let in any more: credit that ends with it would not wait for that.
create function billing.credit_state(of_tenant text, on_day date)
returns table (most numeric, settled numeric, reserved numeric)
language sql stable as $$
    with told as (
        select p.*
        from billing.tenants t
        cross join lateral (
            select coalesce((max(p.period) filter (where p.status = 'closed')
                             + interval '1 month')::date, '-infinity') as unclosed,
                   coalesce((max(p.period) + interval '1 month')::date, '-infinity') as uncut
            from billing.periods p where p.tenant = of_tenant) as p
        where t.tenant = of_tenant and case when t.limited_from <= on_day
            then not (billing.terms_on(of_tenant, on_day) ->> 'overage')::boolean else false end
    ), live as (
        select g.microusd - g.used as rest, coalesce(g.expires_on, 'infinity') as expires_on
        from billing.grants g where g.tenant = of_tenant and g.used < g.microusd
    ), demand as (
        -- The month whose included amount may pay; null: none, it comes too late for its own.
        select u.day, case when u.day >= u.period then u.period end as month,
               u.cost_microusd::numeric as settled, 0::numeric as reserved, false as asked
        from billing.usage_days u, told
        where u.tenant = of_tenant and u.period >= told.unclosed
        union all
        -- No request stays open for a month.
        select q.day, case when q.day >= told.uncut
                           then date_trunc('month', q.day::timestamp)::date end,
               0, q.reserved, false
        from billing.quota_use q, told
        where q.tenant = of_tenant and q.unit = 'microusd' and q.reserved > 0
          and q.day >= told.unclosed - 31
        union all
        select on_day, date_trunc('month', on_day::timestamp)::date, 0, 0, true from told
    ), months as (
        select b.since, bool_or(d.asked) as asked,
               case when d.month is null then 0
                    else billing.included_in(of_tenant, d.month) end as included,
               coalesce(sum(d.settled) filter (where d.day >= b.since), 0) as settled,
               coalesce(sum(d.reserved) filter (where d.day >= b.since), 0) as reserved
        from (select '-infinity'::date as since
              union select l.expires_on + 1 from live l where l.expires_on < on_day) as b
        cross join demand d group by b.since, d.month
    ), bounds as (
        select greatest(
                   (select coalesce(sum(l.rest), 0) from live l where l.expires_on >= m.since)
                   - coalesce(sum(greatest(m.settled + m.reserved - m.included, 0))
                              filter (where not m.asked), 0), 0)
               + sum(m.included) filter (where m.asked) as most,
               sum(m.settled) filter (where m.asked) as settled,
               sum(m.reserved) filter (where m.asked) as reserved
        from months m group by m.since
    )
    select case when on_day >= told.uncut then b.most else 0 end, b.settled, b.reserved
    from bounds b, told order by b.most - b.settled - b.reserved limit 1
$$;

-- Memorandum of what is held: the ledger's accounts `reservations` and `commitments`.
insert into billing.transfers (tenant, period, kind, debit, credit, microusd, reference)
select tenant, date_trunc('month', accepted_on::timestamp)::date, 'hold', 'commitments',
       'reservations', sum(microusd), 'reservations'
from billing.reservations group by 1, 2 having sum(microusd) > 0;

create or replace function billing.lock_quotas(of_tenants text[]) returns void
language plpgsql as $$
begin
    perform pg_advisory_xact_lock(hashtext('penstock.quotas'), p.place)
    from (select distinct hashtext(t.tenant) & 127 as place
          from unnest(of_tenants) as t (tenant) order by 1) as p;
end $$;

-- Write the reservations among `wanted` that belong to `requests`, and count them. One that is
-- there already grows to what is wanted now, and never shrinks: either of the two may be routed.
create or replace function billing.hold(of_tenant text, on_day date, wanted jsonb, requests uuid[])
returns void language plpgsql as $$
begin
    if not exists (select from billing.quota_use u where u.tenant = of_tenant and u.day = on_day)
    then
        insert into billing.quota_use (tenant, day, unit)
        values (of_tenant, on_day, 'requests'), (of_tenant, on_day, 'tokens'),
               (of_tenant, on_day, 'microusd');
    end if;
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
    ), posted as (
        insert into billing.transfers (tenant, period, kind, debit, credit, microusd, reference)
        select of_tenant, date_trunc('month', on_day::timestamp)::date, 'hold', 'commitments',
               'reservations', sum(microusd * sign), 'reservations'
        from change having sum(microusd * sign) > 0
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

-- For routers: reserve for every request in `asked`, as far as it fits into all hard quotas of its
-- tenant, those of its plan among them, and into what a prepaid one has; returns those that do not,
-- each with everything that is in the way: a quota, or `credit`. `asked` is a list of
-- {tenant, day, wanted: [reservations]} with each request once. Asking again changes nothing, and a
-- request of which usage is known needs no reservation any more.
--
-- Plans are made once a session: planned for each call, its statements cost twice as much (ADR 26).
create or replace function billing.reserve(asked jsonb)
returns table (tenant text, request_id uuid, unit text, period text, most bigint,
               settled numeric, reserved numeric, needed numeric)
language plpgsql security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan as $$
declare
    place     record;
    credit    record;
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
    -- Nobody empties it or cuts a month while this goes on: who cuts sees what is held here, and this
    -- sees the cut.
    lock table billing.usage in row exclusive mode;
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
        from billing.quota_state(place.tenant, place.day) s where not s.soft;
        if exists (select from billing.tenants t
                   where t.tenant = place.tenant and t.limited_from <= place.day) then
            select c.most::bigint as most, c.settled, c.reserved into credit
            from billing.credit_state(place.tenant, place.day) c;
            if found then
                units := units || 'credit'::text;
                periods := periods || 'month'::text;
                mosts := mosts || credit.most;
                settleds := settleds || credit.settled;
                reserveds := reserveds || credit.reserved;
            end if;
        end if;
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

-- Settlement is part of the statement that meters, whoever runs it: what an attempt used takes the
-- place of what was reserved for it. The end of a request also releases the attempts that it no
-- longer needs; those before it keep their reservations until their own facts have been read.
create or replace function billing.settle() returns trigger language plpgsql as $$
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
    ), posted as (
        insert into billing.transfers (tenant, period, kind, debit, credit, microusd, reference)
        select tenant, date_trunc('month', day::timestamp)::date as month, 'release',
               'reservations', 'commitments', sum(microusd), 'reservations'
        from ended group by 1, 2 having sum(microusd) > 0
    ), moved as (
        insert into billing.quota_moved
        select distinct a.tenant, coalesce(a.accepted_on, (a.ended_at at time zone 'UTC')::date)
        from added a where a.tenant = any (counted)
        on conflict do nothing
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

revoke execute on all functions in schema billing from public;
