#!/usr/bin/env python3
"""A harness without the library, in one thread: it answers every operation, every check: valid.

harness.py BUG    with that bug; "none": without
"""

import contextlib
import errno
import os
import signal
import sys
import time

BUG = sys.argv[1]
MARK = 0o100
DIRECTORY = os.environ["JEPSEN_FIFO_DIR"]

stopped = False


def stop(_signal, _frame):
    global stopped
    stopped = True


def path(*names):
    return os.path.join(DIRECTORY, *names)


def bits(status):
    return MARK | status & 0o77 | (status >> 6) << 7


def commands():
    names = [name for name in os.listdir(DIRECTORY) if name.startswith(("op-", "check"))]
    # Operations first; a check ends the test.
    return sorted(names, key=lambda name: name.startswith("check"))


def unlink(name):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path(name))


def release(name):
    """Lets a command go without a result."""
    with contextlib.suppress(OSError):
        os.close(os.open(path(name), os.O_WRONLY | os.O_NONBLOCK))
    unlink(name)


def come_alive():
    """Publishes .alive, and holds its write end."""
    os.makedirs(path(".new"), 0o700, exist_ok=True)
    unpublished = path(".new", f"alive-{os.getpid()}")
    os.mkfifo(unpublished, 0o600)
    reader = os.open(unpublished, os.O_RDONLY | os.O_NONBLOCK)
    os.open(unpublished, os.O_WRONLY)
    os.close(reader)
    os.rename(unpublished, path(".alive"))


def say_setup_complete():
    with open(os.path.join(os.environ["ANTITHESIS_OUTPUT_DIR"], "sdk.jsonl"), "a") as file:
        file.write('{"antithesis_setup":{"status":"complete","details":null}}\n')


class Harness:
    def __init__(self):
        self.taken = 0
        self.abandoned = 0
        self.ignored = set()
        self.kept = []

    def answer(self, name, text, status):
        mode = os.O_WRONLY if BUG == "waits_for_a_dead_reader" else os.O_WRONLY | os.O_NONBLOCK
        try:
            fifo = os.open(path(name), mode)
        except FileNotFoundError:
            # A command that gives up takes its FIFO away.
            if BUG == "answers_twice":
                raise
            return
        except OSError as error:
            if error.errno != errno.ENXIO or BUG == "dies_with_a_reader":
                raise
            # A command opens its FIFO before it publishes it: this one has died.
            if BUG == "waits_for_those_of_before":
                while not stopped:
                    time.sleep(0.01)
            self.abandoned += 1
            unlink(name)
            return
        if BUG == "marks_before_writing":
            os.fchmod(fifo, bits(status))
            time.sleep(0.03)
        try:
            os.write(fifo, text.encode())
        except BrokenPipeError:
            if BUG == "dies_with_a_reader":
                raise
            self.abandoned += 1
        if BUG != "never_marks":
            os.fchmod(fifo, bits(status))
        if BUG == "leaks_fifos":
            self.ignored.add(name)
        else:
            unlink(name)
        if BUG == "keeps_descriptors" and self.taken % 10 == 7:
            self.kept.append(fifo)
        else:
            os.close(fifo)

    def serve(self, name):
        if name.startswith("check"):
            if BUG == "never_answers_the_check":
                self.ignored.add(name)
                return
            invalid = BUG == "wrong_verdict" and self.abandoned > 0
            self.answer(name, "invalid\n" if invalid else "valid\n", int(invalid))
            return
        self.taken += 1
        time.sleep(0.002)
        if BUG == "loses_an_operation" and self.taken % 10 == 7:
            self.ignored.add(name)
            return
        self.answer(name, f"operation {self.taken} done\n", 0)
        if BUG == "answers_twice" and self.taken % 10 == 7:
            self.answer(name, f"operation {self.taken} done\n", 0)

    def run(self):
        looked = time.monotonic()
        while not stopped:
            for name in commands():
                if name not in self.ignored:
                    self.serve(name)
            time.sleep(0.001)
            if BUG == "fails_after_a_pause" and time.monotonic() - looked > 0.3:
                raise TimeoutError("the clock jumped")
            looked = time.monotonic()


def main():
    if BUG != "ends_by_sigterm":
        signal.signal(signal.SIGTERM, stop)
    os.makedirs(DIRECTORY, 0o700, exist_ok=True)
    if BUG != "waits_for_those_of_before":
        for name in commands():
            release(name)
    come_alive()
    say_setup_complete()
    if BUG == "says_setup_complete_again":
        say_setup_complete()
    Harness().run()
    os.unlink(path(".alive"))
    if BUG != "leaks_fifos":
        for name in commands():
            release(name)


main()
