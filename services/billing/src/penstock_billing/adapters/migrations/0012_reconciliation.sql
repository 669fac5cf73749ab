-- The reconciliation reads the log behind metering and keeps sums of its own: of the rows whose
-- facts it has seen. Whatever is metered later lies beyond it in the log, so that rows, sums and
-- ledger can be compared at any moment without reading the whole table. So it does with transfers,
-- which lie in the order of the transactions that write them.

create table billing.reconciled (
    one           boolean primary key default true check (one),
    -- Every fact up to here has been compared with its row.
    events_seq    bigint not null,
    -- Every transfer of the transactions before this one is summed.
    transfers_xid bigint not null
);
insert into billing.reconciled (events_seq, transfers_xid) values (0, 0);

create table billing.reconciled_usage (
    tenant              text    not null,
    period              date    not null,
    attempts            bigint  not null,
    input_tokens        numeric not null,
    cached_input_tokens numeric not null,
    output_tokens       numeric not null,
    tool_calls          numeric not null,
    cost_microusd       numeric not null,
    primary key (tenant, period)
);

create table billing.reconciled_transfers (
    tenant   text    not null,
    period   date    not null,
    debit    text    not null,
    credit   text    not null,
    microusd numeric not null,
    primary key (tenant, period, debit, credit)
);

alter table billing.transfers
    add column xid bigint not null default pg_current_xact_id()::text::bigint;

-- Rows are added in about the order of the log, of transactions and of time: an index of a few
-- pages finds a range of it.
create index usage_event_seq on billing.usage using brin (event_seq)
    with (pages_per_range = 16, autosummarize = on);
create index transfers_xid on billing.transfers using brin (xid)
    with (pages_per_range = 16, autosummarize = on);
create index usage_minutes_minute on billing.usage_minutes using brin (minute)
    with (pages_per_range = 16, autosummarize = on);
create index usage_users_day on billing.usage_users using brin (day)
    with (pages_per_range = 16, autosummarize = on);

-- Rows that are read again are compared again.
create function billing.compare_again() returns trigger language plpgsql
security definer set search_path = pg_catalog, pg_temp as $$
begin
    update billing.reconciled set events_seq = 0;
    delete from billing.reconciled_usage;
    return null;
end $$;
create trigger compare_again after truncate on billing.usage
    for each statement execute function billing.compare_again();
revoke execute on function billing.compare_again() from public;
