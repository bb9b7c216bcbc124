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

-- Addresses that a run reserved and offered to nobody come back when it ends; what a DevKey or a
-- node was ever made for does not.
drop trigger address_range_stays;
create trigger address_range_stays before delete on address_range
when exists (
    select 1 from (select address from dev_key union select address from node) as used
    where used.address between old.first and old.last and not exists (
        select 1 from address_range as other
        where other.first <> old.first and used.address between other.first and other.last
    )
)
begin
    select raise(abort, 'an address range would be forgotten');
end;

drop trigger address_range_fixed;
create trigger address_range_fixed before update on address_range
when new.first < old.first or new.last > old.last
    or new.run_id <> old.run_id or new.purpose <> old.purpose
    or exists (
        select 1 from (select address from dev_key union select address from node) as used
        where used.address between old.first and old.last
            and used.address not between new.first and new.last and not exists (
            select 1 from address_range as other
            where other.first <> old.first and used.address between other.first and other.last
        )
    )
begin
    select raise(abort, 'an address range would be changed');
end;
