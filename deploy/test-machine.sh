# For test-boot.sh and test-power.sh, which read it: a Debian root for a package's processor, and a machine that runs it.
# They set $package, and $machine to "yes" for a root with a kernel. NEEDS ROOT, debootstrap and a network for the first run (the
# root is kept in $FOREBAY_BOOT_DIR and used again); for a machine qemu-system of the package's processor, and qemu-user-static
# where that is not this machine's own.

dir=${FOREBAY_BOOT_DIR:-/var/tmp/forebay-boot}
here=$(dirname "$(realpath "$0")")
arch=$(dpkg-deb --field "$package" Architecture)
base=$dir/base-$arch${machine:+-machine}
root=$dir/root
disk=$dir/disk.img

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

# A fresh root with the package in it; $1 is a script to be run there as well.
make_root() {
  [ -e "$base/usr/bin/systemctl" ] || make_base
  rm -rf "$root"
  cp -a "$base" "$root"
  cp "$package" "$root/forebay.deb"
  systemd-nspawn -q --register=no --keep-unit -D "$root" --pipe sh -ec "
    DEBIAN_FRONTEND=noninteractive dpkg --install /forebay.deb
    $1" > "$dir/install.log" 2>&1 || { cat "$dir/install.log"; exit 1; }
}

# A unit that runs /usr/local/bin/$1 when the machine is up, writes /result and /details, and turns it off. $2: more lines of it.
add_test_unit() {
  install -m 755 "$here/$1-inside.sh" "$root/usr/local/bin/$1"
  cat > "$root/etc/systemd/system/$1.service" <<UNIT
[Unit]
After=multi-user.target
SuccessAction=poweroff-force
FailureAction=poweroff-force
$2
[Service]
Type=oneshot
ExecStart=/usr/local/bin/$1
# An emulated machine is slow.
Environment=PATIENCE=${machine:+8}
StandardOutput=file:/result
StandardError=file:/details
TimeoutStartSec=2h
[Install]
WantedBy=default.target
UNIT
  systemctl --root "$root" enable --quiet "$1.service"
}

make_disk() {
  rm -f "$disk"
  truncate -s 4G "$disk"
  mkfs.ext4 -q -d "$root" "$disk"
}

# Becomes the machine, until it turns itself off: for a subshell. $1: more words for the kernel; the rest: more arguments of qemu.
run_machine() {
  local words=$1 kernel=("$root"/boot/vmlinuz-*) initrd=("$root"/boot/initrd.img-*) emulate console
  shift
  case $arch in
    arm64) emulate=(qemu-system-aarch64 -machine virt -cpu cortex-a72); console=ttyAMA0 ;;
    amd64) emulate=(qemu-system-x86_64 -machine q35 -cpu max); console=ttyS0 ;;
    *) echo "no machine for $arch" >&2; exit 2 ;;
  esac
  exec "${emulate[@]}" -smp 2 -m 1024 -nographic -no-reboot -drive "file=$disk,format=raw,if=virtio" "$@" \
    -kernel "${kernel[0]}" -initrd "${initrd[0]}" -append "root=/dev/vda rw console=$console quiet $words" < /dev/null
}

take_results() {
  local name
  for name in result details; do debugfs -R "dump /$name $dir/$name" "$disk" 2> /dev/null; done
}

show_results() {
  cat "$dir/result"
  tail -n 1 "$dir/result" | grep -qx "all points hold" || { echo "--- details"; tail -n 60 "$dir/details"; exit 1; }
}
