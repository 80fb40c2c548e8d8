#!/usr/bin/env bash
# Builds the program and its Debian package for one kind of machine, by one command:
#
#   cross/build.sh amd64|arm64|armhf [plain|cross]
#
# plain (the default): on Debian 12 or newer with its own cross compilers. Another processor's Rust library comes from rustup,
#   if the toolchain has it, else from Debian's rustc-web. cross: with https://github.com/cross-rs/cross and docker or podman, in
#   a container of the same Debian and compilers (Containerfile); Rust's library is rustup's then.
#
# PROFILE=dist (the default; DuckDB is compiled at full optimisation: half an hour on two cores) or release.
# CARGO_TARGET_DIR as for cargo. The package is put into $CARGO_TARGET_DIR/debian.
# arm64 runs on Raspberry Pi OS 12 and other systems with glibc 2.34. armhf has no SQL and needs ARMv7.
set -euo pipefail
cd "$(dirname "$0")/.."

machine=${1:-}
way=${2:-plain}
profile=${PROFILE:-dist}
target_dir=${CARGO_TARGET_DIR:-$PWD/target}
export CARGO_TARGET_DIR=$target_dir
# The same bytes from the same commit: no other time in the package.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}

features=()
variant=()
case $machine in
  amd64) triple=x86_64-unknown-linux-gnu; gnu=x86_64-linux-gnu ;;
  arm64) triple=aarch64-unknown-linux-gnu; gnu=aarch64-linux-gnu ;;
  armhf) triple=armv7-unknown-linux-gnueabihf; gnu=arm-linux-gnueabihf; features=(--no-default-features); variant=(--variant armv7) ;;
  *) echo "usage: cross/build.sh amd64|arm64|armhf [plain|cross]" >&2; exit 2 ;;
esac

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
install_packages() { as_root apt-get update -qq; as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; }

# Compiler, linker and Rust's own library for another processor, as far as they are missing.
prepare_plain() {
  local wanted=()
  command -v "$gnu-g++" >/dev/null || wanted+=("g++-$gnu")
  if ! [ -d "$("${RUSTC:-rustc}" --print sysroot)/lib/rustlib/$triple" ]; then
    if [ -z "${RUSTC:-}" ] && command -v rustup >/dev/null && rustup target add "$triple" 2>/dev/null; then :; else
      dpkg --print-foreign-architectures | grep -qx "$machine" || as_root dpkg --add-architecture "$machine"
      dpkg -s "libstd-rust-web-dev:$machine" >/dev/null 2>&1 || wanted+=(rustc-web libstd-rust-web-dev "libstd-rust-web-dev:$machine")
      export RUSTC=/usr/bin/rustc
    fi
  fi
  [ "${#wanted[@]}" = 0 ] || install_packages "${wanted[@]}"
  local key=${triple//-/_}
  export "CARGO_TARGET_${key^^}_LINKER=$gnu-gcc" "CC_$key=$gnu-gcc" "CXX_$key=$gnu-g++" "AR_$key=$gnu-ar"
}

host=$(rustc -vV | sed -n 's/^host: //p')
built=$target_dir/$profile
target=()
if [ "$triple" != "$host" ]; then
  target=(--target "$triple")
  built=$target_dir/$triple/$profile
fi

if [ "$way" = cross ]; then
  command -v cross >/dev/null || { echo "cross is not installed; cargo install cross" >&2; exit 1; }
  cross build --profile "$profile" --bin forebay "${features[@]}" --target "$triple"
  target=(--target "$triple")
  built=$target_dir/$triple/$profile
else
  ( [ "$triple" = "$host" ] || prepare_plain
    cargo build --profile "$profile" --bin forebay "${features[@]}" "${target[@]}" )
fi

# Pages and completions are the same for every processor, and are written on this one.
cargo run --quiet --no-default-features --example pages -- "$built/pages"
gzip --best --no-name --force "$built/pages/man1/"*.1

command -v cargo-deb >/dev/null || cargo install --locked cargo-deb
# The profile dist strips the program itself.
strip_it=()
[ "$profile" = dist ] || strip_it=(--strip)
cargo deb --no-build --profile "$profile" "${strip_it[@]}" "${target[@]}" "${variant[@]}" --output "$target_dir/debian/"
package=$(ls -t "$target_dir/debian/"forebay_*_"$machine".deb | head -n 1)

strip=$gnu-strip
command -v "$strip" >/dev/null || strip=strip
"$strip" -o "$built/forebay.stripped" "$built/forebay"
printf '%-40s %12s bytes\n' "program, stripped ($machine, $profile)" "$(stat -c %s "$built/forebay.stripped")" \
  "$(basename "$package")" "$(stat -c %s "$package")"
sha256sum "$package"
