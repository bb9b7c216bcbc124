-- Version 1. Octet strings are blobs, times are RFC 3339 text in UTC, truth values are 0 and 1.

create table network (
    id integer primary key check (id = 1),
    mesh_uuid blob not null check (length(mesh_uuid) = 16),
    net_key blob not null check (length(net_key) = 16),
    net_key_index integer not null check (net_key_index between 0 and 4095),
    app_key blob not null check (length(app_key) = 16),
    app_key_index integer not null check (app_key_index between 0 and 4095),
    address integer not null check (address between 1 and 32767)
) strict;

create table iv_index (
    id integer primary key check (id = 1),
    value integer not null check (value between 0 and 4294967295),
    update_in_progress integer not null check (update_in_progress in (0, 1))
) strict;
insert into iv_index values (1, 0, 0);

create trigger iv_index_forward before update on iv_index
when new.value < old.value
    or (new.value = old.value and new.update_in_progress > old.update_in_progress)
begin
    select raise(abort, 'the IV Index would go backwards');
end;

-- One row for each IV Index that we ever sent with. `reserved` is exclusive: numbers below it may
-- have been on the air. `next_clean` is the exact next number after a clean stop, else null.
create table seq (
    iv_index integer primary key check (iv_index between 0 and 4294967295),
    reserved integer not null check (reserved between 0 and 16777216),
    next_clean integer check (next_clean between 0 and reserved)
) strict;

create trigger seq_forward before update on seq
when new.iv_index <> old.iv_index or new.reserved < old.reserved
begin
    select raise(abort, 'SEQ would go backwards');
end;

create trigger seq_stays before delete on seq
begin
    select raise(abort, 'SEQ would be forgotten');
end;

create table replay (
    src integer primary key check (src between 1 and 32767),
    iv_index integer not null check (iv_index between 0 and 4294967295),
    seq integer not null check (seq between 0 and 16777215)
) strict;

create table address_range (
    first integer primary key check (first between 1 and 32767),
    last integer not null check (last between first and 32767),
    run_id text not null,
    purpose text not null
) strict;

create trigger address_range_stays before delete on address_range
begin
    select raise(abort, 'an address range would be forgotten');
end;

create trigger address_range_fixed before update on address_range
begin
    select raise(abort, 'an address range would be changed');
end;

-- Every DevKey that left for a board is kept: when Provisioning Complete was lost, or a second board
-- was tried with the address, nobody knows which one is in use. The newest is tried first.
create table dev_key (
    id integer primary key,
    address integer not null check (address between 1 and 32767),
    device_uuid blob not null check (length(device_uuid) = 16),
    octets blob not null check (length(octets) = 16)
) strict;
create index dev_key_address on dev_key (address);

create table node (
    address integer primary key check (address between 1 and 32767),
    run_id text not null,
    role text not null,
    listed integer not null check (listed in (0, 1)),
    proven integer not null check (proven in (0, 1)),
    device_uuid blob check (length(device_uuid) = 16),
    device_address text,
    elements integer,
    provisioned_by integer,
    parent_source text,
    onoff integer check (onoff in (0, 1)),
    first_seen text,
    last_seen text
) strict;

create table run (
    run_id text primary key,
    state text not null,
    started text not null,
    expected integer,
    heard integer not null,
    known integer not null,
    proven integer not null,
    "primary" integer,
    unicast_min integer,
    unicast_max integer,
    "group" integer,
    "match" blob not null,
    elapsed_s real not null,
    t_provisioned_s real,
    t_known_s real,
    t_proven_s real,
    reason text,
    finished text
) strict;
create index run_started on run (started);

create table missing_board (
    run_id text not null references run (run_id) on delete cascade,
    position integer not null,
    reason text not null,
    address integer,
    device_uuid blob check (length(device_uuid) = 16),
    device_address text,
    primary key (run_id, position)
) strict;
