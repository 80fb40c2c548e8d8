-- The ledger, version 1. Times are microseconds since 1970 UTC; ranges of seqs are closed.

-- Every life of this folder, and those whose segments it adopted. `set_aside` says why nothing more of it is shipped.
create table instances (
    id integer primary key,
    name text not null unique,
    forked_from text,
    begun integer not null,
    reason text not null,
    set_aside text
) strict;

-- One row, rewritten by every transaction: who this folder is and the books of the current instance.
-- The last seq is `accepted`, the mark is `accepted - hot`.
create table state (
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
) strict;

-- Committed batches that are not sealed yet; `bytes` is compressed Arrow without seqs.
create table journal (
    first_seq integer primary key,
    readings integer not null,
    committed integer not null,
    sha256 blob not null,
    bytes blob not null
) strict;

create table cuts (
    id integer primary key,
    instance text not null references instances (name),
    number integer not null,
    first_seq integer not null,
    last_seq integer not null,
    readings integer not null,
    records integer not null,
    sealed integer not null,
    state text not null check (state in ('sealed', 'delivered', 'dropped')),
    unique (instance, number)
) strict;
create index cuts_sealed on cuts (state) where state = 'sealed';

-- `damaged` is after its delivery; `lost` before it: its rows are a loss.
create table segments (
    id integer primary key,
    cut integer not null references cuts (id),
    kind text not null check (kind in ('readings', 'records')),
    date text not null,
    bytes integer not null,
    sha256 blob not null,
    rows integer not null,
    first_seq integer not null,
    last_seq integer not null,
    min_time integer not null,
    max_time integer not null,
    state text not null check (state in ('present', 'evicted', 'damaged', 'lost')),
    unique (cut, kind, date)
) strict;
create index segments_present on segments (max_time) where state = 'present';

-- `manifest` holds the exact bytes until the shipment is delivered.
create table shipments (
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
-- One shipment is under way at most.
create unique index shipments_under_way on shipments ((1)) where delivered is null;

create table losses (
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
create index losses_untold on losses (instance) where shipment is null;

-- True as of the mark; `readings` also counts what is gone since.
create table series (
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

create table records (
    id integer primary key,
    source text not null,
    kind text not null,
    body text not null,
    first_received integer not null,
    last_received integer not null,
    times integer not null
) strict;
create index records_source on records (source);

-- `marks` is true as of the last fold of mark_log; numbers are never given twice.
create table sessions (
    id integer primary key autoincrement,
    name text not null unique,
    opened integer not null,
    last_used integer not null,
    marks blob not null
) strict;
create index sessions_last_used on sessions (last_used);

-- One row a commit with changes of marks, in order.
create table mark_log (
    id integer primary key,
    events blob not null
) strict;

create table idempotency (
    id integer primary key,
    digest blob not null unique,
    received integer not null
) strict;
