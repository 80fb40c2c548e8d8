-- Files whose rows came in by import: how many of each are committed, so that none comes in twice.
create table imports (
    id integer primary key,
    file blob not null unique,
    rows integer not null
) strict;
