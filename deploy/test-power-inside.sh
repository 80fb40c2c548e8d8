#!/usr/bin/env bash
# The part of test-power.sh that runs in the machine, when its power was cut for the last time.
set -u

until forebay status >&2; do sleep 1; done
# What the sensors send again comes until nothing has come for a while.
before=-1
until [ "$before" = "${now:=0}" ] && [ "$now" -gt 0 ]; do
  before=$now
  sleep 60
  now=$(forebay status --json | grep -o '"accepted":[0-9]*' | head -n 1 | tr -dc 0-9)
done
forebay flush --wait 10m >&2
forebay status >&2
count() { forebay query "select $1 from readings where metric = 'seq'" --format csv | tail -n 1; }
forebay verify /srv/lake >&2 && lake=complete || lake=incomplete
printf 'kept %s %s %s\n' "$(count 'count(*)')" "$(count 'count(distinct (sensor, value))')" "$lake"
