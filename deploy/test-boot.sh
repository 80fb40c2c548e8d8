#!/usr/bin/env bash
# Boots a Debian root with the package installed and tries what a gateway goes through. NEEDS ROOT, debootstrap,
# systemd-container and a network for the first run (the root is kept in $FOREBAY_BOOT_DIR and used again).
#
#   deploy/test-boot.sh PACKAGE.deb [PROGRAM]
#
# PROGRAM is one with failpoints (cargo build --features failpoints): with it a worker is blocked, and the watchdog has to
# find it, which takes two minutes. Prints a line a point; exit 1 if one does not hold.
set -euo pipefail

package=$(realpath "$1")
failpoints=${2:+$(realpath "$2")}
dir=${FOREBAY_BOOT_DIR:-/var/tmp/forebay-boot}
here=$(dirname "$(realpath "$0")")

if ! [ -e "$dir/base/usr/bin/systemctl" ]; then
  mkdir -p "$dir"
  debootstrap --variant=minbase \
    --include=systemd,systemd-sysv,dbus,mosquitto,mosquitto-clients,libstdc++6,procps,ca-certificates,debconf bookworm "$dir/base"
fi

root=$dir/root
rm -rf "$root"
cp -a "$dir/base" "$root"
cp "$package" "$root/forebay.deb"
install -m 755 "$here/test-boot-inside.sh" "$root/usr/local/bin/test-boot-inside"
[ -z "$failpoints" ] || install -m 755 "$failpoints" "$root/usr/local/bin/forebay-failpoints"

cat > "$root/etc/systemd/system/test-boot.service" <<'UNIT'
[Unit]
Description=What a gateway goes through
After=multi-user.target
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
ExecStart=/usr/local/bin/test-boot-inside
StandardOutput=file:/result
StandardError=file:/details
TimeoutStartSec=15min
[Install]
WantedBy=default.target
UNIT
systemd-nspawn -q --register=no --keep-unit -D "$root" --pipe sh -c '
  systemctl enable -q mosquitto test-boot
  # By default it throws away what comes while forebay is away, beyond a thousand messages.
  echo max_queued_messages 0 > /etc/mosquitto/conf.d/forebay.conf
  useradd --create-home --groups users gardener
  DEBIAN_FRONTEND=noninteractive dpkg --install /forebay.deb
  usermod --append --groups forebay gardener' > "$dir/install.log" 2>&1 || { cat "$dir/install.log"; exit 1; }

# What the container itself forbids would hide what the unit allows.
landlock="landlock_create_ruleset landlock_add_rule landlock_restrict_self"
timeout 1200 systemd-nspawn -q --register=no --keep-unit --system-call-filter="$landlock" -D "$root" --boot > "$dir/boot.log" 2>&1 || true
cat "$root/result"
tail -n 1 "$root/result" | grep -qx "all points hold" || { echo "--- details"; tail -n 60 "$root/details"; exit 1; }
