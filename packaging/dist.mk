# Packages for people: see packaging/dist.py, and packaging/tests for how each of them is used.

DIST_VENV := .venv-dist/bin
DIST_TRIPLES := x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu x86_64-unknown-linux-musl aarch64-unknown-linux-musl

.PHONY: dist test-dist

$(DIST_VENV)/.made: packaging/requirements.txt
	$(PYTHON) -m venv .venv-dist
	$(DIST_VENV)/pip install --quiet -r $<
	touch $@

dist: $(DIST_VENV)/.made
	rustup target add $(DIST_TRIPLES)
	PATH="$(CURDIR)/$(DIST_VENV):$$PATH" $(DIST_VENV)/python packaging/dist.py

test-dist: dist
	PATH="$(CURDIR)/$(DIST_VENV):$$PATH" $(DIST_VENV)/python -m pytest -q packaging/tests
