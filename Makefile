# make            the library and the command
# make demo       a bank on SQLite, tested by a Python harness (BUG=1: a broken bank)
# make test       every test of every language
# make install    PREFIX=/usr/local DESTDIR=
# make bench      what is promised about speed, as ratios
# make soak       the long form of the soak tests
# make header     include/jepsen_antithesis.h from the Rust sources
# make test-jepsen JEPSEN_CP=...   the tests that need Jepsen on the class path

CARGO ?= cargo
PYTHON ?= python3
MVN ?= mvn
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib

# Everything is built where this file looks for it, whatever the environment says.
export CARGO_TARGET_DIR := $(CURDIR)/target
unexport CARGO_BUILD_TARGET CARGO_BUILD_TARGET_DIR

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
ABI := $(shell sed -n 's/^pub const JEP_ABI_VERSION: u32 = \(.*\);/\1/p' src/ffi/types.rs)
RELEASE := target/release
LIB := $(RELEASE)/libjepsen_antithesis.so
COMMAND := $(RELEASE)/jepsen-composer
MUSL := $(shell uname -m)-unknown-linux-musl
VENV := .venv/bin

.PHONY: all lib command demo test test-rust test-model test-msrv test-static-command test-install test-python \
	test-jvm test-jepsen install bench soak header clean

all: lib command

# What an earlier build left must not pass for this one's, where cargo's configuration sends the build
# elsewhere.
lib:
	rm -f $(LIB) $(RELEASE)/libjepsen_antithesis.a
	$(CARGO) build --release --locked --package jepsen-antithesis --lib
	ln -sf libjepsen_antithesis.so $(LIB).$(ABI)
	@test -e $(LIB) || { echo "make: cargo did not build $(LIB): does its configuration set build.target?" >&2; exit 1; }

# Static, so that it runs in any image and starts fast: on musl, where rustup has or gets that target,
# else on the C library that is here, else dynamic.
command:
	@rm -f $(COMMAND)
	@mkdir -p $(RELEASE)
	@CARGO="$(CARGO)" MUSL=$(MUSL) command/build $(COMMAND)

demo: all
	@$(PYTHON) examples/demo.py $(if $(BUG),--bug)

test: test-rust test-model test-msrv test-static-command test-install test-python test-jvm

# The library first: the tests of C programs link to it.
test-rust: all
	$(CARGO) build --locked --package jepsen-antithesis --lib
	$(CARGO) test --locked --no-fail-fast

# Who watches and who sleeps, in every interleaving of a few threads.
test-model:
	RUSTFLAGS="--cfg loom" $(CARGO) test --locked --release --target-dir target/loom --package jepsen-antithesis --lib leader_followers

# The stated Rust version builds what users build: library, command and Rust example.
test-msrv:
	@CARGO_TARGET_DIR=$(CURDIR)/target/msrv tests/msrv.sh

test-static-command: all
	JEPSEN_COMPOSER=$(CURDIR)/$(COMMAND) $(CARGO) test --locked --package jepsen-composer --test command --test install --test outside

test-install: all
	tests/installed.sh

$(VENV)/.made: bindings/python/dev-requirements.txt
	$(PYTHON) -m venv .venv
	$(VENV)/pip install --quiet -r $<
	touch $@

PYTHON_CONFIG := --config bindings/python/pyproject.toml bindings/python examples

test-python: all $(VENV)/.made
	$(VENV)/ruff check $(PYTHON_CONFIG)
	$(VENV)/ruff format --check $(PYTHON_CONFIG)
	cd bindings/python && ../../$(VENV)/mypy
	$(VENV)/python -m pytest -q bindings/python

test-jvm: all
	$(MVN) -f bindings/jvm/pom.xml test

test-jepsen: all
	$(MVN) -f bindings/jvm/pom.xml test -Djepsen.classpath="$(JEPSEN_CP)"

install: all
	install -d "$(DESTDIR)$(PREFIX)/bin" "$(DESTDIR)$(PREFIX)/include" \
		"$(DESTDIR)$(LIBDIR)/pkgconfig" "$(DESTDIR)$(PREFIX)/share/jepsen-antithesis/composer"
	install -m 755 $(LIB) "$(DESTDIR)$(LIBDIR)/libjepsen_antithesis.so.$(ABI).$(VERSION)"
	ln -sf libjepsen_antithesis.so.$(ABI).$(VERSION) "$(DESTDIR)$(LIBDIR)/libjepsen_antithesis.so.$(ABI)"
	ln -sf libjepsen_antithesis.so.$(ABI) "$(DESTDIR)$(LIBDIR)/libjepsen_antithesis.so"
	install -m 644 $(RELEASE)/libjepsen_antithesis.a "$(DESTDIR)$(LIBDIR)"
	install -m 644 include/jepsen_antithesis.h "$(DESTDIR)$(PREFIX)/include"
	sed -e 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@VERSION@|$(VERSION)|' \
		jepsen-antithesis.pc.in > "$(DESTDIR)$(LIBDIR)/pkgconfig/jepsen-antithesis.pc"
	install -m 755 $(COMMAND) "$(DESTDIR)$(PREFIX)/bin"
	install -m 755 composer/command "$(DESTDIR)$(PREFIX)/share/jepsen-antithesis/composer"
	ln -sf command "$(DESTDIR)$(PREFIX)/share/jepsen-antithesis/composer/op"
	ln -sf command "$(DESTDIR)$(PREFIX)/share/jepsen-antithesis/composer/check"

bench: all
	benches/run

soak: all
	JEPSEN_SOAK=1 JEP_TEST_LONG=1 $(CARGO) test --locked --release --package jepsen-antithesis --test soak -- --nocapture

header:
	UPDATE_HEADER=1 $(CARGO) test --quiet --package jepsen-antithesis --test header is_up_to_date

clean:
	$(CARGO) clean
	rm -rf .venv
