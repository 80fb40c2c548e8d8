#!/usr/bin/env bash
# Cuts the power of an emulated machine with the package installed, again and again while sensors publish to it, and then looks
# for every reading that was acknowledged: in the gateway and in its lake, which is on the same disk. With the machine goes what its
# kernel had not written yet. What it needs: test-machine.sh; about two minutes a cut.
#
#   deploy/test-power.sh PACKAGE.deb PROGRAM [CUTS]
#
# PROGRAM is a forebay for this machine, which plays the sensors (forebay sim). Exit 1 if something is missing or double.
set -euo pipefail

machine=yes
package=$(realpath "$1")
program=$(realpath "$2")
cuts=${3:-5}
. "$(dirname "$(realpath "$0")")/test-machine.sh"
port=18899
emulator=
sensors=

make_root "
  systemctl enable -q systemd-networkd
  printf '[Match]\nType=ether\n[Network]\nAddress=10.0.2.15/24\n' > /etc/systemd/network/card.network
  mkdir -p /etc/forebay/forebay.d /srv/lake && chown forebay: /srv/lake
  printf '[listener]\nbind = [\"0.0.0.0:1884\"]\nanonymous = true\n[segment]\nseal_interval = \"5s\"\n[upstream]\nurl = \"file:///srv/lake\"\n' \
    > /etc/forebay/forebay.d/power.toml
  systemctl disable -q mosquitto"
add_test_unit test-power "ConditionKernelCommandLine=forebay.look"
make_disk
rm -f "$dir/result" "$dir/details"

publish() {
  "$program" sim --mqtt "mqtt://127.0.0.1:$port" --sensors 10 --rate 100 --readings 3 --json > "$dir/sent" 2> "$dir/sim.log" &
  sensors=$!
}

# Returns when it asks for a login; forebay is ready before that.
start() {
  rm -f "$dir/boot.log"
  run_machine "$1" -nic "user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:$port-:1884" > "$dir/boot.log" 2>&1 & emulator=$!
  until grep -qs "login:" "$dir/boot.log"; do
    kill -0 "$emulator" 2> /dev/null || { cat "$dir/boot.log"; exit 1; }
    sleep 1
  done
}

trap 'kill -9 $sensors $emulator 2> /dev/null || true' EXIT
for cut in $(seq "$cuts"); do
  start ""
  [ -n "$sensors" ] || publish
  after=$(( 10 + RANDOM % 20 ))
  sleep $after
  kill -9 "$emulator"
  wait "$emulator" 2> /dev/null || true
  echo "cut $cut of $cuts, $after s after the machine was up"
done
start forebay.look
sleep 20
# Sends nothing new, and waits until all is acknowledged.
kill -INT $sensors
wait $sensors || true
wait "$emulator" || true
take_results
field() { grep -o "\"$1\":[0-9]*" "$dir/sent" | tr -dc 0-9; }
read -r _ kept distinct lake < "$dir/result"
echo "messages: $(field sent) sent, $(field acknowledged) acknowledged, $kept kept, $distinct of them different; the lake is $lake"
[ "$kept" = "$distinct" ] && [ "$kept" -ge "$(field acknowledged)" ] && [ "$kept" -le "$(field sent)" ] && [ "$lake" = complete ]
echo "all points hold"
