-- A merged cut takes the place of undelivered neighbours under the number of the last; `first_cut` is the number of the
-- first, and of others their own. What it was merged from is `merged`. `tried`: a shipment of it was given up, and files of
-- it may be upstream under its number, so that it is not merged any more; of the cuts of old nobody knows.
create table cuts_2 (
    id integer primary key,
    instance text not null references instances (name),
    number integer not null,
    first_cut integer not null,
    first_seq integer not null,
    last_seq integer not null,
    readings integer not null,
    records integer not null,
    sealed integer not null,
    state text not null check (state in ('sealed', 'delivered', 'dropped', 'merged')),
    tried integer not null,
    unique (instance, number)
) strict;
insert into cuts_2
    select id, instance, number, number, first_seq, last_seq, readings, records, sealed, state, 1 from cuts;
drop table cuts;
alter table cuts_2 rename to cuts;
create index cuts_sealed on cuts (state) where state = 'sealed';
