#!/usr/bin/env bash
# The part of test-boot.sh that runs in the machine that was booted.
set -u

failed=0
holds() { printf 'ok      %s\n' "$1"; }
fails() { printf 'FAILED  %s\n' "$1"; failed=1; }
point() { local name=$1; shift; if "$@" >&2; then holds "$name"; else fails "$name"; fi; }
until_true() { local end=$(( SECONDS + $1 )); shift; until "$@"; do [ $SECONDS -lt $end ] || return 1; sleep 0.5; done; }
show() { systemctl show forebay --property "$1" --value; }
field() { forebay status --json | grep -o "\"$1\":[0-9]*" | head -n 1 | tr -dc 0-9; }
active() { [ "$(show ActiveState)/$(show SubState)" = active/running ]; }
restarts_are() { [ "$(show NRestarts)" -ge "$1" ] && active; }
watchdog_acted() { [ "$(show NRestarts)" -gt "$1" ] && journalctl --unit forebay --output cat | grep -q "Watchdog timeout"; }
as_gardener() { runuser --user gardener -- "$@"; }
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

# --- reload
sed -i 's/^#\[log\]/[log]/; s/^\[log\]/[log]\nlevel = "debug"/' /etc/forebay/forebay.toml
pid=$(show MainPID)
point "reload is taken by the running process" systemctl reload forebay
sleep 1
point "which stays" test "$(show MainPID)" = "$pid"
point "its log says so" bash -c 'journalctl --unit forebay --output cat | grep -q "configuration is read again"'

# --- a wrong configuration
cp /etc/forebay/forebay.toml /root/right.toml
echo '[no_such_section]' >> /etc/forebay/forebay.toml
systemctl restart forebay
sleep 12
point "a wrong configuration ends with exit code 78" test "$(show ExecMainStatus)" = 78
before=$(show NRestarts)
sleep 12
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
