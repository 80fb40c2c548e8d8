-- What the names of the segments that are here add up to: whether the folder agrees is known without listing them. Null
-- until the first transaction.
alter table state add column segments_check integer;
