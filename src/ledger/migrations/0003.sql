-- Sessions hold messages at QoS 2 (`held`, as `marks` true as of the last fold of mark_log), and may end by themselves:
-- `expiry` seconds after their connection did (null: never), which is at `expires` (null: connected, or never).
alter table sessions add column held blob not null default x'';
alter table sessions add column expiry integer;
alter table sessions add column expires integer;
create index sessions_expiry on sessions (expires) where expiry is not null;
