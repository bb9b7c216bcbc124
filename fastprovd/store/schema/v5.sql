-- Version 5: the last regular change of the IV Index since its last recovery, and when that was.
-- Null: never, or not known.
alter table iv_index add column changed text;
alter table iv_index add column recovered text;
