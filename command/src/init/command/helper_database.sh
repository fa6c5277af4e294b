# What the commands of this template share. Antithesis does not run it: its name begins with helper_.
# shellcheck shell=sh

shared=${JEPSEN_FIFO_DIR:-/run/jepsen}

# Faults reach the commands too. One that is told to stop has found nothing.
trap 'exit 0' TERM INT HUP PIPE

# Stands in for your database, at the host $DATABASE_HOST. Give its client a timeout of some seconds.

# Adds an element. Succeeds only when the database says that it has it.
add() {
	echo "$1" >>"$shared/database"
}

# Prints all elements, one a line. Fails when the database cannot be read.
read_all() {
	cat "$shared/database"
}
