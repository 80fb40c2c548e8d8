#!/usr/bin/env bash
# The part of test-boot.sh that runs in the machine that was booted.
set -u

# How many times as slow as a container the machine may be.
patience=${PATIENCE:-1}
failed=0
holds() { printf 'ok      %s\n' "$1"; }
fails() { printf 'FAILED  %s\n' "$1"; failed=1; }
point() { local name=$1; shift; if "$@" >&2; then holds "$name"; else fails "$name"; fi; }
until_true() { local end=$(( SECONDS + $1 * patience )); shift; until "$@"; do [ $SECONDS -lt $end ] || return 1; sleep 0.5; done; }
pause() { sleep $(( $1 * patience )); }
show() { systemctl show forebay --property "$1" --value; }
field() { forebay status --json | grep -o "\"$1\":[0-9]*" | head -n 1 | tr -dc 0-9; }
active() { [ "$(show ActiveState)/$(show SubState)" = active/running ]; }
restarts_are() { [ "$(show NRestarts)" -ge "$1" ] && active; }
watchdog_acted() { [ "$(show NRestarts)" -gt "$1" ] && journalctl --unit forebay --output cat | grep -q "Watchdog timeout"; }
as_gardener() { runuser --user gardener -- "$@"; }
own_unit_is() { forebay status --json | grep -q "\"engine\":{\"state\":\"ready\".*\"own_unit\":$1"; }
engine_pid() { pgrep --newest --uid forebay-engine --exact forebay; }
engine_gone() { ! engine_pid > /dev/null; }
another_engine() { local now; now=$(engine_pid) && [ "$now" != "$1" ] && own_unit_is true; }
count_is() { [ "$(as_gardener forebay query "select count(distinct value) as n from readings where metric = 'seq'" --format csv | tail -n 1)" = "$1" ]; }
accepted_at_least() { [ "$(field accepted)" -ge "$1" ]; }

# --- after the boot
until_true 120 active
point "active (running) after the boot" active
point "ready after the sources: systemd was told READY" test "$(show StatusText)" != ""
point "runs as its own user" test "$(stat -c %U /proc/"$(show MainPID)")" = forebay
point "status as an unprivileged user of the group" as_gardener forebay status
point "and not for others" bash -c '! runuser --user nobody -- forebay status'
point "SQL under the unit's restrictions" until_true 60 as_gardener forebay query "select count(*) from readings"
point "seccomp, Landlock and the limit of memory hold around SQL" \
  bash -c 'forebay status --json | grep -q "\"isolation\":\[\"seccomp\",\"landlock\",\"rlimit\"\]"'
point "doctor finds no fault" forebay doctor --json
forebay doctor | sed 's/^/        /'

# Manual pages are not there to be verified in a root as small as this.
verify_unit() { ! systemd-analyze verify --man=no forebay.service 2>&1 | grep forebay; }
point "systemd-analyze verify has nothing to say" verify_unit
# 1.6 without addresses; with IPAddressDeny=any and the addresses of broker and upstream named it is 1.5.
point "systemd-analyze security: exposure at most 1.6" systemd-analyze security --offline=true --threshold=16 --no-pager \
  /usr/lib/systemd/system/forebay.service

# --- readings through mosquitto, which needs no setting
send() { mosquitto_pub -h 127.0.0.1 -q 1 -t "garden/pump" -l; }
seq -f '{"seq": %.0f}' 1 1000 | send
point "what the local mosquitto hears is kept" until_true 60 accepted_at_least 1000

# --- kill -9
before=$(show NRestarts)
kill -9 "$(show MainPID)"
point "kill -9: started again" until_true 60 restarts_are $(( before + 1 ))
point "and nothing is lost" accepted_at_least 1000

# --- stop under load
seq -f '{"seq": %.0f}' 1001 60000 | send & sender=$!
sleep 2
began=$SECONDS
point "a stop under load ends in order" systemctl stop forebay
printf '        it took %s s\n' $(( SECONDS - began ))
point "with exit code 0" test "$(show ExecMainStatus)/$(show Result)" = 0/success
systemctl start forebay
wait $sender
point "and loses nothing: all 60,000 are kept" until_true 120 accepted_at_least 60000
distinct=$(forebay query "select count(distinct value) as n from readings where metric = 'seq'" --format csv | tail -n 1)
point "every number is there ($distinct)" test "$distinct" = 60000
forebay status | grep -E '^(machine|engine)' | sed 's/^/        /'

# --- SQL in a unit of its own
forebay flush --wait 5s >&2 || true # there is no upstream; but what is here is sealed, as files for the daemon alone
cp /usr/share/doc/forebay/examples/engine-unit.toml /etc/forebay/forebay.d/
systemctl enable --quiet --now forebay-engine.socket
systemctl restart forebay
point "SQL in a unit of its own, switched on by three commands" until_true 60 own_unit_is true
point "it reads the segments that were there" until_true 60 count_is 60000
pid=$(engine_pid)
point "it runs as its own user" test "$(stat -c %U /proc/"$pid")" = forebay-engine
point "and status names what holds around it" \
  bash -c 'forebay status --json | grep -q "\"isolation\":\[\"seccomp\",\"landlock\",\"rlimit\",\"user\"\]"'
files=$(cd "/proc/$pid/root" && find . -path ./proc -prune -o -path ./sys -prune -o -path ./dev -prune -o -path './segments/*' -prune \
  -o -type f -printf '%f ')
printf '        its files: %s and %s\n' "$files" "$(ls "/proc/$pid/root" | tr '\n' ' ')"
point "in a file system with nothing but the program and its libraries" \
  bash -c "! tr ' ' '\n' <<< '$files' | grep -vE '^(forebay|ld-linux-.*|lib(c|m|gcc_s|stdc\+\+)\.so\.[0-9.]*|)$'"
point "no ledger above the segments, nothing in /etc" \
  test "$(ls -d "/proc/$pid/root/var/lib" "/proc/$pid/root/forebay.db" "/proc/$pid/root/etc/"* 2>/dev/null | wc -l)" = 0
point "where nothing can be written" \
  bash -c "! cut -d ' ' -f 5,6 /proc/$pid/mountinfo | grep -E ' rw' | grep -vE '^/(proc|run|dev/(pts|mqueue|hugepages)) '"
point "and with the readings alone of all segments" test "$(ls "/proc/$pid/root/segments")" = readings
point "without a network" bash -c "! tail -n +3 /proc/$pid/net/dev | grep -v ' lo:'"
point "without an environment" test "$(tr '\0' ' ' < "/proc/$pid/environ")" = "MALLOC_ARENA_MAX=2 "
point "nobody else may start one" bash -c '! runuser --user gardener -- test -w /run/forebay-engine.sock'
# Where the controller is not delegated, as in a container, nothing can be seen of it.
limit=/sys/fs/cgroup$(tail -n 1 "/proc/$pid/cgroup" | cut -d : -f 3)/memory.max
[ ! -e "$limit" ] || point "the kernel holds it to its unit's memory" test "$(cat "$limit")" = $(( 512 << 20 ))
point "its memory is known" test "$(forebay status --json | grep -o '"engine":{[^}]*' | grep -o '"rss_bytes":[0-9]*' | tr -dc 0-9)" -gt 1000000
kill -9 "$pid"
point "kill -9: another one answers" until_true 60 another_engine "$pid"
mkdir -p /run/systemd/system/forebay-engine@.service.d
printf '[Service]\nWorkingDirectory=/moved\nBindReadOnlyPaths=/var/lib/forebay/segments/readings:/moved/readings\n' \
  > /run/systemd/system/forebay-engine@.service.d/moved.conf
systemctl daemon-reload
pid=$(engine_pid)
kill -9 "$pid"
point "a drop-in may name another data folder" until_true 60 another_engine "$pid"
point "and it is read there" bash -c "ls /proc/$(engine_pid)/root/moved/readings | grep date && forebay query 'select sum(value) from readings'"
rm -r /run/systemd/system/forebay-engine@.service.d
systemctl daemon-reload
seq -f '{"seq": %.0f}' 60001 60500 | send
point "what comes meanwhile is kept" until_true 60 accepted_at_least 60500
forebay flush --wait 5s >&2 || true
point "and read, also from new segments" until_true 60 count_is 60500
verify_engine() { ! systemd-analyze verify --man=no forebay-engine.socket forebay-engine@.service 2>&1 | grep forebay; }
point "systemd-analyze verify has nothing to say to it" verify_engine
cp /usr/lib/systemd/system/forebay-engine@.service /run/forebay-engine@1.service
point "systemd-analyze security: exposure at most 0.3" \
  systemd-analyze security --offline=true --threshold=3 --no-pager /run/forebay-engine@1.service
systemctl stop forebay
point "it ends with the daemon" until_true 20 engine_gone
systemctl start forebay
until_true 60 own_unit_is true
systemctl disable --quiet --now forebay-engine.socket
kill -9 "$(engine_pid)"
point "without its socket a query says what is missing" \
  until_true 20 bash -c 'forebay query "select 1" 2>&1 | grep -q "start forebay-engine.socket"'
rm /etc/forebay/forebay.d/engine-unit.toml
systemctl restart forebay
point "switched off again, it is a child of the daemon" until_true 60 own_unit_is false
point "that answers" until_true 60 count_is 60500
point "and nobody else may read the segments" test "$(stat -c %a /var/lib/forebay/segments/readings)" = 700

# --- reload
sed -i 's/^#\[log\]/[log]/; s/^\[log\]/[log]\nlevel = "debug"/' /etc/forebay/forebay.toml
pid=$(show MainPID)
point "reload is taken by the running process" systemctl reload forebay
pause 1
point "which stays" test "$(show MainPID)" = "$pid"
point "its log says so" bash -c 'journalctl --unit forebay --output cat | grep -q "configuration is read again"'

# --- a wrong configuration
cp /etc/forebay/forebay.toml /root/right.toml
echo '[no_such_section]' >> /etc/forebay/forebay.toml
systemctl restart forebay
pause 12
point "a wrong configuration ends with exit code 78" test "$(show ExecMainStatus)" = 78
before=$(show NRestarts)
pause 12
point "and is not started again in a loop" test "$(show ActiveState)/$(show NRestarts)" = "failed/$before"
cp /root/right.toml /etc/forebay/forebay.toml
systemctl start forebay
point "corrected, it starts" active

# --- a worker that is stuck
if [ -x /usr/local/bin/forebay-failpoints ]; then
  mkdir -p /run/systemd/system/forebay.service.d
  printf '[Service]\nExecStart=\nExecStart=/usr/local/bin/forebay-failpoints run\nEnvironment=FAILPOINTS=pump.before_ack=1*off->pause\nWatchdogSec=10s\n' \
    > /run/systemd/system/forebay.service.d/blocked.conf
  systemctl daemon-reload
  systemctl restart forebay
  before=$(show NRestarts)
  ( for number in $(seq 1 200); do mosquitto_pub -h 127.0.0.1 -q 1 -t garden/pump -m "{\"late\": $number}"; sleep 1; done ) & sender=$!
  point "a blocked worker is found by the watchdog" until_true 240 watchdog_acted "$before"
  kill $sender
  rm -r /run/systemd/system/forebay.service.d
  systemctl daemon-reload
fi

# --- an upgrade
pid=$(show MainPID)
point "an upgrade" dpkg --install /forebay.deb
until_true 60 active
point "starts the new program" test "$(show MainPID)" != "$pid"
point "on the same data" until_true 60 accepted_at_least 60000

# --- away and gone
point "removal stops it" dpkg --remove forebay
point "and keeps the data and the configuration" test -e /var/lib/forebay/forebay.db -a -e /etc/forebay/forebay.toml
point "installed again it goes on with them" bash -c 'dpkg --install /forebay.deb'
until_true 60 active
point "with all it had" accepted_at_least 60000
echo 'forebay forebay/purge-data boolean true' | debconf-set-selections
point "purged with consent" env DEBIAN_FRONTEND=noninteractive dpkg --purge forebay
point "the data is gone" test ! -e /var/lib/forebay -a ! -e /etc/forebay

[ $failed = 0 ] && echo "all points hold"
exit $failed
