# The project's build: `make`, `make demo`, `make test`.

CARGO ?= cargo
LIB := target/release/libjepsen_antithesis.so

.PHONY: all lib header
all: lib

lib:
	$(CARGO) build --release --lib
	ln -sf libjepsen_antithesis.so $(LIB).1

# Brings include/jepsen_antithesis.h up to date with the Rust sources.
header:
	UPDATE_HEADER=1 $(CARGO) test --quiet --test header is_up_to_date
