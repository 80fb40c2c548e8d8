-- user_version 7
CREATE TABLE instances (
    id integer primary key,
    name text not null unique,
    forked_from text,
    begun integer not null,
    reason text not null,
    set_aside text
) strict;
CREATE TABLE state (
    one integer primary key check (one = 1),
    host_id text not null,
    instance text not null references instances (name),
    exported_record integer not null,
    accepted integer not null,
    hot integer not null,
    sealed integer not null,
    delivered integer not null,
    thinned integer not null,
    dropped integer not null,
    damaged integer not null,
    kept integer not null,
    messages_qos0 integer not null,
    messages_qos1 integer not null,
    messages_qos2 integer not null,
    messages_http integer not null,
    readings integer not null,
    records integer not null,
    rejected integer not null,
    duplicates integer not null,
    ignored integer not null,
    skipped_members integer not null,
    times_replaced integer not null
, segments_check integer) strict;
CREATE TABLE journal (
    first_seq integer primary key,
    readings integer not null,
    committed integer not null,
    sha256 blob not null,
    bytes blob not null
) strict;
CREATE TABLE shipments (
    id integer primary key,
    instance text not null references instances (name),
    number integer not null,
    cut integer references cuts (id),
    sha256 blob not null,
    manifest blob,
    begun integer not null,
    delivered integer,
    unique (instance, number)
) strict;
CREATE UNIQUE INDEX shipments_under_way on shipments ((1)) where delivered is null;
CREATE TABLE losses (
    id integer primary key,
    instance text not null references instances (name),
    first_seq integer not null,
    last_seq integer not null,
    readings integer not null,
    reason text not null check (reason in ('thinned', 'dropped', 'damaged', 'rebuilt')),
    noted integer not null,
    detail text not null,
    shipment integer
) strict;
CREATE INDEX losses_untold on losses (instance) where shipment is null;
CREATE TABLE series (
    sensor text not null,
    metric text not null,
    unit text,
    first_time integer,
    last_time integer,
    readings integer not null,
    last_value real,
    last_text text,
    primary key (sensor, metric)
) strict, without rowid;
CREATE TABLE records (
    id integer primary key,
    source text not null,
    kind text not null,
    body text not null,
    first_received integer not null,
    last_received integer not null,
    times integer not null
) strict;
CREATE INDEX records_source on records (source);
CREATE TABLE sessions (
    id integer primary key autoincrement,
    name text not null unique,
    opened integer not null,
    last_used integer not null,
    marks blob not null
, held blob not null default x'', expiry integer, expires integer) strict;
CREATE TABLE sqlite_sequence(name,seq);
CREATE INDEX sessions_last_used on sessions (last_used);
CREATE TABLE mark_log (
    id integer primary key,
    events blob not null
) strict;
CREATE TABLE idempotency (
    id integer primary key,
    digest blob not null unique,
    received integer not null
) strict;
CREATE INDEX sessions_expiry on sessions (expires) where expiry is not null;
CREATE TABLE refused (
    cut integer primary key references cuts (id) on delete cascade,
    reason text not null,
    since integer not null,
    again integer,
    times integer not null
) strict;
CREATE TABLE "segments" (
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
CREATE INDEX segments_present on segments (max_time) where state = 'present';
CREATE TABLE imports (
    id integer primary key,
    file blob not null unique,
    rows integer not null
) strict;
CREATE TABLE "cuts" (
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
CREATE INDEX cuts_sealed on cuts (state) where state = 'sealed';
