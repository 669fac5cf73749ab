-- A tenant's share of the machines, relative to the others'. The default lets the release before
-- this one go on writing tenants.

alter table billing.tenants
    add column weight integer not null default 1 check (weight > 0);
