#!/usr/bin/env bash
# Boots a Debian root with the package installed and tries what a gateway goes through. NEEDS ROOT, debootstrap and a network
# for the first run (the root is kept in $FOREBAY_BOOT_DIR and used again), and for a container systemd-container, for a machine
# the qemu-system of the package's processor, and qemu-user-static where that is not this machine's own.
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
dir=${FOREBAY_BOOT_DIR:-/var/tmp/forebay-boot}
here=$(dirname "$(realpath "$0")")
arch=$(dpkg-deb --field "$package" Architecture)
base=$dir/base-$arch${machine:+-machine}
root=$dir/root

# Debian as small as it gets; a machine needs a kernel too.
make_base() {
  local with=systemd,systemd-sysv,dbus,mosquitto,mosquitto-clients,libstdc++6,procps,ca-certificates,debconf
  [ -z "$machine" ] || with=$with,udev,kmod,initramfs-tools,linux-image-cloud-$arch
  mkdir -p "$dir"
  if [ "$arch" = "$(dpkg --print-architecture)" ]; then
    debootstrap --variant=minbase --include="$with" bookworm "$base"
  else
    debootstrap --arch="$arch" --foreign --variant=minbase --include="$with" bookworm "$base"
    chroot "$base" /debootstrap/debootstrap --second-stage
  fi
}

make_root() {
  rm -rf "$root"
  cp -a "$base" "$root"
  cp "$package" "$root/forebay.deb"
  install -m 755 "$here/test-boot-inside.sh" "$root/usr/local/bin/test-boot-inside"
  [ -z "$failpoints" ] || install -m 755 "$failpoints" "$root/usr/local/bin/forebay-failpoints"
  cat > "$root/etc/systemd/system/test-boot.service" <<UNIT
[Unit]
Description=What a gateway goes through
After=multi-user.target
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/usr/local/bin/test-boot-inside
# An emulated machine is slow.
Environment=PATIENCE=${machine:+8}
StandardOutput=file:/result
StandardError=file:/details
TimeoutStartSec=2h
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
}

boot_container() {
  # What the container itself forbids would hide what the unit allows.
  local landlock="landlock_create_ruleset landlock_add_rule landlock_restrict_self"
  timeout 1200 systemd-nspawn -q --register=no --keep-unit --system-call-filter="$landlock" -D "$root" --boot > "$dir/boot.log" 2>&1 || true
  cp "$root/result" "$root/details" "$dir"
}

boot_machine() {
  local disk=$dir/disk.img kernel=("$root"/boot/vmlinuz-*) initrd=("$root"/boot/initrd.img-*) emulate console
  case $arch in
    arm64) emulate=(qemu-system-aarch64 -machine virt -cpu cortex-a72); console=ttyAMA0 ;;
    amd64) emulate=(qemu-system-x86_64 -machine q35 -cpu max); console=ttyS0 ;;
    *) echo "no machine for $arch" >&2; exit 2 ;;
  esac
  rm -f "$disk"
  truncate -s 4G "$disk"
  mkfs.ext4 -q -d "$root" "$disk"
  timeout 7200 "${emulate[@]}" -smp 2 -m 1024 -nographic -no-reboot -nic none -drive "file=$disk,format=raw,if=virtio" \
    -kernel "${kernel[0]}" -initrd "${initrd[0]}" -append "root=/dev/vda rw console=$console quiet" > "$dir/boot.log" 2>&1 < /dev/null || true
  debugfs -R "dump /result $dir/result" "$disk" 2> /dev/null
  debugfs -R "dump /details $dir/details" "$disk" 2> /dev/null
}

[ -e "$base/usr/bin/systemctl" ] || make_base
make_root
rm -f "$dir/result" "$dir/details"
if [ -n "$machine" ]; then boot_machine; else boot_container; fi
cat "$dir/result"
tail -n 1 "$dir/result" | grep -qx "all points hold" || { echo "--- details"; tail -n 60 "$dir/details"; exit 1; }
