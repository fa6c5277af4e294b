"""A set: what was added must be there at the end.

harness.py antithesis    runs as the test commands say
harness.py test          runs by itself
"""

import itertools
import threading

from jepsen_antithesis import Client, checker, cli
from jepsen_antithesis import generator as gen


class Database:
    """Stands in for yours. Replace it by a driver, and connect to the host $DATABASE_HOST."""

    elements = set()
    lock = threading.Lock()

    def add(self, element):
        with self.lock:
            self.elements.add(element)

    def read(self):
        with self.lock:
            return sorted(self.elements)


class SetClient(Client):
    """One connection, for one process of the test. An exception means that nobody knows whether
    the operation happened; return the type "fail" when it certainly did not.
    """

    def open(self, test, node):
        client = SetClient()
        client.database = Database()
        return client

    def setup(self, test):
        """Makes tables, and waits until the database can be used."""

    def invoke(self, test, op):
        if op["f"] == "add":
            self.database.add(op["value"])
            return {**op, "type": "ok"}
        return {**op, "type": "ok", "value": self.database.read()}

    def close(self, test):
        """Closes the connection."""


numbers = itertools.count()


def add():
    return {"f": "add", "value": next(numbers)}


def set_test(options):
    main = gen.time_limit(options["time_limit"], add)
    final = gen.each_thread({"f": "read"})
    return {
        **options,
        "name": "@NAME@",
        "client": SetClient(),
        "generator": gen.clients(gen.phases(gen.main_gen(main), final)),
        "checker": checker.compose({"set": checker.set(), "stats": checker.stats()}),
    }


if __name__ == "__main__":
    cli.run(cli.single_test_cmd(set_test), cli.antithesis_cmd(set_test))
