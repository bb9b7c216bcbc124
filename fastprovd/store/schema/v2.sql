-- Version 2: whether the join window is closed, and boards that are not ours.

alter table run add column t_closed_s real;
alter table run add column "window" text;
alter table run add column window_evidence text;

create table stranger (
    run_id text not null references run (run_id) on delete cascade,
    position integer not null,
    reason text not null,
    device_uuid blob check (length(device_uuid) = 16),
    device_address text,
    primary key (run_id, position)
) strict;
