-- Version 3: the journal of runs, and where the database lives.

-- What a run is about to do, or has seen done; written before it acts. Journals of old runs go.
create table journal (
    id integer primary key,
    run_id text not null,
    kind text not null,
    at text not null,
    address integer check (address between 1 and 32767),
    device_uuid blob check (length(device_uuid) = 16),
    device_address text,
    "first" integer check ("first" between 1 and 32767),
    "last" integer check ("last" between "first" and 32767),
    node_addr_cnt integer,
    detail text
) strict;
create index journal_run on journal (run_id);

-- The file and the machine that were in use last, and how often the database was opened.
-- `conflict` is why the radio says that somebody else uses our address. `seq_floor` is where SEQ
-- begins under an IV Index that is new to us.
create table home (
    id integer primary key check (id = 1),
    machine text,
    inode text,
    generation integer,
    opened integer not null check (opened >= 0),
    conflict text,
    seq_floor integer not null check (seq_floor between 0 and 16777216)
) strict;
insert into home values (1, null, null, null, 0, null, 0);

-- A board that lost its power has forgotten that it is the node.
alter table node add column forgotten integer not null default 0 check (forgotten in (0, 1));

-- Boards that a run took on, under the newest such run: they are nodes, or nobody knows.
create table board (
    device_uuid blob primary key check (length(device_uuid) = 16),
    run_id text not null
) strict;
