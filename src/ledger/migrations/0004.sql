-- Cuts that upstream refused: passed over until `again`; null where it is their turn again.
create table refused (
    cut integer primary key references cuts (id) on delete cascade,
    reason text not null,
    since integer not null,
    again integer,
    times integer not null
) strict;
