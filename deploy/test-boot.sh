#!/usr/bin/env bash
# Boots a Debian root with the package installed and tries what a gateway goes through. What it needs: test-machine.sh, and for a
# container systemd-container.
#
#   deploy/test-boot.sh [--machine] PACKAGE.deb [PROGRAM]
#
# In a container of this machine, which takes three minutes, or in an emulated machine with a kernel, a disk and a memory of 1 GiB
# of its own, for arm64 as well as for amd64: half an hour. PROGRAM is one with failpoints (cargo build --features failpoints):
# with it a worker is blocked, and the watchdog has to find it. Prints a line a point; exit 1 if one does not hold.
set -euo pipefail

machine=
[ "$1" != --machine ] || { machine=yes; shift; }
package=$(realpath "$1")
failpoints=${2:+$(realpath "$2")}
. "$(dirname "$(realpath "$0")")/test-machine.sh"

boot_container() {
  # What the container itself forbids would hide what the unit allows.
  local landlock="landlock_create_ruleset landlock_add_rule landlock_restrict_self"
  timeout 1200 systemd-nspawn -q --register=no --keep-unit --system-call-filter="$landlock" -D "$root" --boot > "$dir/boot.log" 2>&1 || true
  cp "$root/result" "$root/details" "$dir"
}

boot_machine() {
  make_disk
  ( run_machine "" -nic none > "$dir/boot.log" 2>&1 ) || true
  take_results
}

# Mosquitto by default throws away what comes while forebay is away, beyond a thousand messages.
make_root "
  systemctl enable -q mosquitto
  echo max_queued_messages 0 > /etc/mosquitto/conf.d/forebay.conf
  useradd --create-home --groups users,forebay gardener"
add_test_unit test-boot ""
[ -z "$failpoints" ] || install -m 755 "$failpoints" "$root/usr/local/bin/forebay-failpoints"
rm -f "$dir/result" "$dir/details"
if [ -n "$machine" ]; then boot_machine; else boot_container; fi
show_results
