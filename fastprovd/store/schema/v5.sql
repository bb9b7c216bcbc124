-- Version 5: which links at the adapter are ours.

-- The BD_ADDRs to which a link is open or about to be opened; BlueZ keeps it when we die.
create table open_link (
    device_address text primary key
) strict;
