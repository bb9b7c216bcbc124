-- Version 5: times of the IV Index, the order of runs and of commits, which links are ours.

-- The last regular change of the IV Index since its last recovery, and when that was.
-- Null: never, or not known.
alter table iv_index add column changed text;
alter table iv_index add column recovered text;

-- The order in which runs were begun: clocks go back. Each write of a run gave it a new rowid, and
-- there was one run at a time.
alter table run add column number integer;
update run set number = (select count(*) from run as other where other.rowid <= run.rowid);
create unique index run_number on run (number);
drop index run_started;

-- The BD_ADDRs to which a link is open or about to be opened; BlueZ keeps it when we die.
create table open_link (
    device_address text primary key
) strict;

-- How often something was changed; a record beside the database has the same number.
alter table home add column commits integer not null default 0 check (commits >= 0);
