# Packages for people: see packaging/dist.py, and packaging/tests for how each of them is used.

DIST_VENV := .venv-dist/bin
DIST_TRIPLES := x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu x86_64-unknown-linux-musl aarch64-unknown-linux-musl

DIST_PATH := PATH="$(CURDIR)/$(DIST_VENV):$$PATH"
# A part for `make test`: one system that is not this one, but whose programs run here.
DIST_ONE := $(shell uname -m)-linux-musl

.PHONY: dist test-dist test-packaging

$(DIST_VENV)/.made: packaging/requirements.txt
	$(PYTHON) -m venv .venv-dist
	$(DIST_VENV)/pip install --quiet -r $<
	touch $@

dist: $(DIST_VENV)/.made
	rustup target add $(DIST_TRIPLES)
	$(DIST_PATH) $(DIST_VENV)/python packaging/dist.py

test-dist: dist
	$(DIST_PATH) $(DIST_VENV)/python -m pytest -q packaging/tests

test-packaging: $(DIST_VENV)/.made
	@command -v rustup >/dev/null || { echo "skipped: rustup is not installed; no packages were made"; exit 0; }; \
	set -e; rustup target add $(filter $(shell uname -m)-%-musl,$(DIST_TRIPLES)); \
	$(DIST_PATH) $(DIST_VENV)/python packaging/dist.py --only $(DIST_ONE) --out target/dist-one; \
	JEPSEN_DIST=target/dist-one $(DIST_PATH) $(DIST_VENV)/python -m pytest -q -m "not slow" packaging/tests
