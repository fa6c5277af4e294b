#!/bin/sh
# Builds and runs the C example against an installed copy, and against nothing else.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
harness=
cleanup() {
	[ -z "$harness" ] || kill "$harness" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT

fail() {
	echo "installed.sh: $1" >&2
	exit 1
}

# Whatever an earlier build left, and wherever the environment sends cargo: what is installed is new.
export CARGO_TARGET_DIR="$work/elsewhere"
mkdir -p "$root/target/release"
rm -f "$root/target/release/jepsen-composer"
echo old > "$root/target/release/jepsen-composer"

# Staged for a package: under DESTDIR, which no installed file mentions.
make -s -C "$root" install PREFIX=/opt/jep DESTDIR="$work/stage"
(cd "$work/stage" && find . -type f -o -type l) | sort > "$work/files"
for file in bin/jepsen-composer include/jepsen_antithesis.h lib/libjepsen_antithesis.a \
	lib/libjepsen_antithesis.so lib/libjepsen_antithesis.so.1 lib/pkgconfig/jepsen-antithesis.pc \
	share/jepsen-antithesis/composer/command share/jepsen-antithesis/composer/op; do
	grep -qx "./opt/jep/$file" "$work/files" || fail "$file is not installed"
done
! grep -q "$work" "$work/stage/opt/jep/lib/pkgconfig/jepsen-antithesis.pc" || fail "DESTDIR in the .pc file"

"$work/stage/opt/jep/bin/jepsen-composer" --version > "$work/version" || fail "an old command was installed"
[ ! -e "$work/elsewhere" ] || fail "make built in \$CARGO_TARGET_DIR, where it does not look"
[ "$(readlink "$work/stage/opt/jep/share/jepsen-antithesis/composer/check")" = command ] ||
	fail "composer/check does not lead to composer/command"

# Installed for use.
usr=$work/usr
make -s -C "$root" install PREFIX="$usr"
mkdir "$work/c"
cp "$root"/examples/c/bank.c "$root"/examples/c/Makefile "$work/c"
if ! pkg-config --exists sqlite3; then
	echo "skipped: the C example needs SQLite's header and library (libsqlite3-dev)"
	echo "installed.sh: 1 passed, 0 failed"
	exit
fi
PKG_CONFIG_PATH=$usr/lib/pkgconfig make -s -C "$work/c"

# run STATUS [OPTION]: two hundred operations and a check that exits with STATUS, as the harness does
run() {
	expected=$1
	shift
	export JEPSEN_FIFO_DIR="$work/control-$expected"
	"$work/c/bank" --exit-after-check "$@" "$work/bank-$expected.db" "$work/history-$expected" &
	harness=$!
	seq 200 | xargs -P 8 -I{} "$usr/bin/jepsen-composer" op > "$work/results"
	status=0
	"$usr/bin/jepsen-composer" check || status=$?
	[ "$status" -eq "$expected" ] || fail "check exited with $status, not $expected"
	status=0
	wait "$harness" || status=$?
	harness=
	[ "$status" -eq "$expected" ] || fail "the harness exited with $status, not $expected"
	[ "$(grep -c . "$work/results")" -ge 200 ] || fail "fewer results than operations"
}
run 0
run 1 --bug
echo "installed.sh: 3 passed, 0 failed"
