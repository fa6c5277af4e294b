# make            the library and the command
# make rehearse   the Test Composer on this machine: jepsen-composer rehearse and report
# make demo       a bank on SQLite and its Python harness, rehearsed with faults (BUG=1: a broken bank)
# make test       every test of every language
# make docs       the API reference of the Python package in target/docs/python/
# make install    PREFIX=/usr/local DESTDIR=
# make install-rehearse  the same for what make rehearse builds, which takes longer
# make bench      what is promised about speed, as ratios
# make dist       wheels, jar, tarballs and Debian packages in dist/
# make test-dist  each of them, installed and used
# make test-rehearse  the long form of its tests: every planted bug, and 200 timelines without one
# make soak       the long form of the soak tests; STORM=600 seconds for each storm
# make header     include/jepsen_antithesis.h from the Rust sources
# make test-jepsen JEPSEN_CP=...   the tests that need Jepsen on the class path

CARGO ?= cargo
PYTHON ?= python3
MVN ?= mvn
PREFIX ?= /usr/local
STORM ?= 600
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

.PHONY: all lib command rehearse demo test test-rehearse test-rust test-report test-model test-msrv test-static-command test-install \
	test-python test-jvm test-jepsen install install-files install-rehearse install-rehearse-files bench soak docs header clean

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

# Beside the command, which looks for it there.
rehearse:
	$(CARGO) build --profile tool --locked --package jepsen-composer-rehearse
	ln -f target/tool/jepsen-composer-rehearse $(RELEASE)/jepsen-composer-rehearse

demo: all rehearse
	@$(PYTHON) examples/demo.py $(if $(BUG),--bug)

test: test-rust test-report test-model test-msrv test-static-command test-install test-python test-jvm test-packaging

# The library first: the tests of C programs link to it.
test-rust: all
	$(CARGO) build --locked --package jepsen-antithesis --lib
	$(CARGO) test --locked --no-fail-fast
	$(CARGO) test --locked --no-fail-fast --package jepsen-composer-rehearse

# The report in a browser.
test-report: $(VENV)/.made
	@if command -v chromium >/dev/null || command -v chromium-browser >/dev/null; then \
		set -e; $(CARGO) build --locked --package jepsen-composer-rehearse; \
		$(VENV)/pip install --quiet -r rehearse/tests/report/requirements.txt; \
		$(VENV)/python -m pytest -q rehearse/tests/report; \
	else echo "test-report: skipped, no chromium is installed (apt-get install chromium)"; fi

# Who watches and who sleeps, in every interleaving of a few threads.
test-model:
	RUSTFLAGS="--cfg loom" $(CARGO) test --locked --profile loom --target-dir target/loom --package jepsen-antithesis --lib leader_followers

# The stated Rust version builds what users build: library, command and Rust example.
test-msrv:
	@CARGO_TARGET_DIR=$(CURDIR)/target/msrv tests/msrv.sh

test-static-command: all
	JEPSEN_COMPOSER=$(CURDIR)/$(COMMAND) $(CARGO) test --locked --package jepsen-composer --test command --test init --test install --test outside

test-install: all
	tests/installed.sh

$(VENV)/.made: bindings/python/dev-requirements.txt
	$(PYTHON) -m venv .venv
	$(VENV)/pip install --quiet -r $<
	touch $@

PYTHON_CONFIG := --config bindings/python/pyproject.toml bindings/python docs/api examples packaging rehearse/tests/report

# Most of the tests wait for processes; those of a file share what it starts.
test-python: all $(VENV)/.made
	$(VENV)/ruff check $(PYTHON_CONFIG)
	$(VENV)/ruff format --check $(PYTHON_CONFIG)
	cd bindings/python && ../../$(VENV)/mypy
	$(VENV)/python -m pytest -q -n 3 --dist loadfile bindings/python

test-jvm: all
	$(MVN) -f bindings/jvm/pom.xml test

test-jepsen: all
	$(MVN) -f bindings/jvm/pom.xml test -Djepsen.classpath="$(JEPSEN_CP)"

install: all
	@$(MAKE) --no-print-directory install-files

# The files themselves: packaging/ sets these to what it built for another system.
INSTALLED_SHARED ?= $(LIB)
INSTALLED_STATIC ?= $(RELEASE)/libjepsen_antithesis.a
INSTALLED_COMMAND ?= $(COMMAND)
PKG_CONFIG_PREFIX ?= $(PREFIX)
PKG_CONFIG_LIBDIR ?= $(LIBDIR)
SHARED_NAME := libjepsen_antithesis.so.$(ABI).$(VERSION)
SUBSTITUTE = sed -e 's|@PREFIX@|$(PKG_CONFIG_PREFIX)|; s|@LIBDIR@|$(PKG_CONFIG_LIBDIR)|; s|@VERSION@|$(VERSION)|' \
	-e 's|@SHARED@|$(SHARED_NAME)|; s|@ABI@|$(ABI)|'

install-files:
	install -d "$(DESTDIR)$(PREFIX)/bin" "$(DESTDIR)$(PREFIX)/include" \
		"$(DESTDIR)$(LIBDIR)/pkgconfig" "$(DESTDIR)$(LIBDIR)/cmake/jepsen-antithesis" \
		"$(DESTDIR)$(PREFIX)/share/jepsen-antithesis/composer"
	install -m 644 $(INSTALLED_SHARED) "$(DESTDIR)$(LIBDIR)/$(SHARED_NAME)"
	ln -sf $(SHARED_NAME) "$(DESTDIR)$(LIBDIR)/libjepsen_antithesis.so.$(ABI)"
	ln -sf libjepsen_antithesis.so.$(ABI) "$(DESTDIR)$(LIBDIR)/libjepsen_antithesis.so"
	install -m 644 $(INSTALLED_STATIC) "$(DESTDIR)$(LIBDIR)"
	install -m 644 include/jepsen_antithesis.h "$(DESTDIR)$(PREFIX)/include"
	$(SUBSTITUTE) jepsen-antithesis.pc.in > "$(DESTDIR)$(LIBDIR)/pkgconfig/jepsen-antithesis.pc"
	for file in jepsen-antithesis-config jepsen-antithesis-config-version; do \
		$(SUBSTITUTE) packaging/cmake/$$file.cmake.in \
			> "$(DESTDIR)$(LIBDIR)/cmake/jepsen-antithesis/$$file.cmake" || exit; done
	install -m 755 $(INSTALLED_COMMAND) "$(DESTDIR)$(PREFIX)/bin"
	install -m 755 composer/command "$(DESTDIR)$(PREFIX)/share/jepsen-antithesis/composer"
	ln -sf command "$(DESTDIR)$(PREFIX)/share/jepsen-antithesis/composer/op"
	ln -sf command "$(DESTDIR)$(PREFIX)/share/jepsen-antithesis/composer/check"

# Not a part of `install`: it takes some times as long to build as all the rest.
install-rehearse: rehearse
	@$(MAKE) --no-print-directory install-rehearse-files

INSTALLED_REHEARSE ?= $(RELEASE)/jepsen-composer-rehearse

install-rehearse-files:
	install -d "$(DESTDIR)$(PREFIX)/bin"
	install -m 755 $(INSTALLED_REHEARSE) "$(DESTDIR)$(PREFIX)/bin"

include packaging/dist.mk

docs: $(VENV)/.made
	$(VENV)/python -m sphinx -q -W --keep-going -b html -d target/docs/doctrees docs/api target/docs/python
	@echo "The API reference is in target/docs/python/index.html"

bench: all
	benches/run

test-rehearse: all
	JEPSEN_REHEARSE_LONG=1 $(CARGO) test --locked --package jepsen-composer-rehearse -- --nocapture

soak: all
	JEPSEN_SOAK=1 JEP_TEST_LONG=1 $(CARGO) test --locked --release --package jepsen-antithesis --test soak -- --nocapture
	JEP_STORM_SECONDS=$(STORM) $(CARGO) test --locked --release --package jepsen-antithesis --test c_abi storm:: -- --nocapture --test-threads 1

header:
	UPDATE_HEADER=1 $(CARGO) test --quiet --package jepsen-antithesis --test header is_up_to_date

clean:
	$(CARGO) clean
	rm -rf .venv .venv-dist dist
