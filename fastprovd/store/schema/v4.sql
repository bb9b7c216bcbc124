-- Version 4: which nodes can be the way into the network, and what adapters bear.

-- Null: nobody told the node, so it has what it was made with.
alter table node add column gatt_proxy integer check (gatt_proxy in (0, 1));

-- How many links each adapter was found to bear; `system` are the versions of BlueZ and the kernel
-- under which that was so.
create table adapter (
    address text primary key,
    system text not null,
    links integer not null check (links > 0)
) strict;
