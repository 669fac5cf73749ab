-- Who may do what (I8). The user who migrates owns everything here; services work as roles that own
-- nothing, and that no row-level security lets through:
--
--   penstock_billing   the platform's own work, over all tenants: metering, closing, reconciling
--   penstock_tenant    answers one tenant's questions: sees the rows of the tenant that the setting
--                      `penstock.tenant` names, and none while it names nobody
--   penstock_router    two functions, and no table
--
-- Roles belong to the server, not to the database: another database may be making the same ones at
-- this moment, and where the user may not make roles, they must be there.
do $$
declare
    wanted text;
    usable boolean;
begin
    foreach wanted in array array['penstock_billing', 'penstock_router', 'penstock_tenant'] loop
        for attempt in 1 .. 20 loop
            begin
                if not exists (select from pg_roles where rolname = wanted) then
                    execute format('create role %I nologin', wanted);
                end if;
                usable := pg_has_role(wanted, 'usage');
                if current_setting('server_version_num')::integer >= 160000 then
                    usable := usable and pg_has_role(wanted, 'set');
                end if;
                if not usable then
                    execute format('grant %I to current_user', wanted);
                end if;
                exit;
            exception when unique_violation or duplicate_object or internal_error then
                if attempt = 20 then
                    raise;
                end if;
            end;
        end loop;
    end loop;
exception when insufficient_privilege then
    raise exception 'The user % may not make the roles that the services need.', current_user
        using errcode = 'insufficient_privilege',
              hint = format(
                  'Have an administrator run: create role penstock_billing; create role '
                  'penstock_router; create role penstock_tenant; grant penstock_billing, '
                  'penstock_router, penstock_tenant to %I;', current_user);
end $$;

do $$
declare
    strong text;
begin
    select rolname into strong from pg_roles
    where rolname in ('penstock_billing', 'penstock_router', 'penstock_tenant')
      and (rolsuper or rolbypassrls) limit 1;
    if strong is not null then
        raise exception 'The role % could bypass row-level security.', strong
            using errcode = 'insufficient_privilege',
                  hint = format('alter role %I nosuperuser nobypassrls;', strong);
    end if;
end $$;

-- Brings the rights on everything in the schema up to date. A migration that adds a table or a
-- function ends with it; whatever it does not name is nobody's but the platform's.
create function billing.isolate() returns void language plpgsql as $$
declare
    place record;
begin
    grant usage on schema billing to penstock_billing, penstock_router, penstock_tenant;
    revoke all on all tables in schema billing from public, penstock_router, penstock_tenant;
    grant select, usage on all sequences in schema billing to penstock_billing;
    for place in
        select c.oid::regclass as name, c.relname,
               exists (select from pg_attribute a where a.attrelid = c.oid
                       and a.attname = 'tenant' and not a.attisdropped) as of_tenants,
               exists (select from pg_trigger t where t.tgrelid = c.oid
                       and t.tgfoid = 'billing.refuse_change()'::regprocedure) as only_grows
        from pg_class c
        where c.relnamespace = 'billing'::regnamespace and c.relkind in ('r', 'p')
        order by c.relname
    loop
        if place.relname = 'schema_version' then
            continue;
        end if;
        execute format('revoke all on %s from penstock_billing', place.name);
        execute format('grant select on %s to penstock_billing', place.name);
        -- Sums are written by the triggers of what they sum up, and facts are never changed.
        if place.relname not in ('usage_days', 'usage_minutes', 'usage_users', 'balances') then
            execute format('grant insert on %s to penstock_billing', place.name);
            if place.relname <> 'usage' and not place.only_grows then
                execute format('grant update, delete on %s to penstock_billing', place.name);
            end if;
        end if;
        if not place.of_tenants then
            continue;
        end if;
        execute format('alter table %s enable row level security', place.name);
        execute format('alter table %s force row level security', place.name);
        execute format('drop policy if exists platform on %s', place.name);
        execute format('drop policy if exists own_rows on %s', place.name);
        -- The owner, who is a member, too: functions that run with its rights reach all tenants.
        execute format('create policy platform on %s to penstock_billing using (true)', place.name);
        execute format(
            'create policy own_rows on %s for select to penstock_tenant '
            'using (tenant = current_setting(''penstock.tenant'', true))', place.name);
        -- Hashes of secrets answer no question.
        if place.relname not in ('api_keys', 'token_audiences') then
            execute format('grant select on %s to penstock_tenant', place.name);
        end if;
    end loop;
    revoke execute on all functions in schema billing from public, penstock_tenant;
    grant execute on all functions in schema billing to penstock_billing;
    revoke execute on function billing.isolate() from penstock_billing;
    -- Whoever may call these may do what they do, and nothing else.
    for place in
        select p.oid::regprocedure as name, p.proname
        from pg_proc p
        where p.pronamespace = 'billing'::regnamespace
          and p.proname in ('reserve', 'overdue_reservations', 'recount')
    loop
        execute format(
            'alter function %s security definer set search_path = pg_catalog, pg_temp', place.name);
        if place.proname <> 'recount' then
            execute format('grant execute on function %s to penstock_router', place.name);
        end if;
    end loop;
end $$;

select billing.isolate();
