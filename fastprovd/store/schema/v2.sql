-- Version 2: groups, whether the join window is closed, and boards that are not ours.

-- Changes of groups that were asked for; without a proof the node may not know of it.
create table membership (
    "group" integer not null check ("group" between 49152 and 65279),
    address integer not null check (address between 1 and 32767),
    is_member integer not null check (is_member in (0, 1)),
    proof text,
    primary key ("group", address)
) strict;

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
