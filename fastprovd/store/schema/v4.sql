-- Version 4: which nodes can be the way into the network.

-- Null: nobody told the node, so it has what it was made with.
alter table node add column gatt_proxy integer check (gatt_proxy in (0, 1));
