-- Version 4: what adapters bear.

-- How many links each adapter was found to bear; `system` are the versions of BlueZ and the kernel
-- under which that was so.
create table adapter (
    address text primary key,
    system text not null,
    links integer not null check (links > 0)
) strict;
