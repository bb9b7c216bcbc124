-- Version 5: times of the IV Index, the order of runs, and how often was committed.

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

-- How often something was changed; a record beside the database has the same number.
alter table home add column commits integer not null default 0 check (commits >= 0);
