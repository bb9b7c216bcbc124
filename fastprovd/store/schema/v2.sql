-- Version 2. Changes of groups that were asked for; without a proof the node may not know of it.

create table membership (
    "group" integer not null check ("group" between 49152 and 65279),
    address integer not null check (address between 1 and 32767),
    is_member integer not null check (is_member in (0, 1)),
    proof text,
    primary key ("group", address)
) strict;
