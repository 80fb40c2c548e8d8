-- A merged segment is a row of its last cut; `first_cut` is the number of its first, and of others that of their cut.
-- What it was merged from is `merged`.
create table segments_2 (
    id integer primary key,
    cut integer not null references cuts (id),
    kind text not null check (kind in ('readings', 'records')),
    date text not null,
    first_cut integer not null,
    bytes integer not null,
    sha256 blob not null,
    rows integer not null,
    first_seq integer not null,
    last_seq integer not null,
    min_time integer not null,
    max_time integer not null,
    state text not null check (state in ('present', 'evicted', 'damaged', 'lost', 'merged')),
    unique (cut, kind, date, first_cut)
) strict;
insert into segments_2
    select s.id, cut, kind, date, number, bytes, sha256, rows, s.first_seq, s.last_seq, min_time, max_time, s.state
    from segments s join cuts c on c.id = s.cut;
drop table segments;
alter table segments_2 rename to segments;
create index segments_present on segments (max_time) where state = 'present';
