#!/bin/sh
# Builds the library, the command and the Rust example with the oldest Rust that Cargo.toml promises.
# rustup gets that version; where there is no rustup, or it cannot have the version, this says so and is
# skipped. The examples' build reuses what the library's has compiled.
set -eu
cd "$(dirname "$0")/.."
version=$(sed -n 's/^rust-version = "\([0-9.]*\)"$/\1/p' Cargo.toml)
[ -n "$version" ] || { echo "msrv.sh: Cargo.toml states no rust-version" >&2; exit 1; }

skip() {
	echo "skipped: Rust $version is not tried: $1"
	echo "msrv.sh: 0 passed, 0 failed, 3 skipped"
	exit 0
}

command -v rustup >/dev/null || skip "rustup, which would get it, is not here"
if ! rustup run "$version" rustc --version >/dev/null 2>&1; then
	echo "msrv.sh: asking rustup for Rust $version"
	RUSTUP_MAX_RETRIES=0 rustup toolchain install "$version" --profile minimal --no-self-update ||
		skip "rustup cannot have it here"
fi

# Not $CARGO and $RUSTC, which may lead past rustup.
unset RUSTC
build() {
	rustup run "$version" cargo build --locked "$@"
}
build --package jepsen-antithesis
build --package jepsen-composer
build --manifest-path examples/rust/Cargo.toml
echo "msrv.sh: 3 passed, 0 failed"
