"""Independent keys: one test of many small things, each of which is checked by itself.

Some checks are expensive, linearizability above all, and need short histories; but short histories
find few bugs. So a test of one register becomes a test of many, one for each key. Names and meaning
are those of ``jepsen.independent``.

- Generators: `sequential_generator` goes through keys one after another, and
  `concurrent_generator` through several at a time, each with its own group of threads. The values
  of their operations are `tuple`s of the key and what the key's generator made.
- Clients take ``key, value = op["value"]``, and keep the key in what they return:
  ``{**op, "type": "ok", "value": independent.tuple(key, read)}``.
- `checker` takes a checker of one key's history, and checks that of each.
"""

from ..types import KeyValue
from .checking import checker
from .generators import concurrent_generator, sequential_generator
from .histories import history_keys, subhistories, subhistory
from .tuples import is_tuple, tuple

__all__ = [
    "KeyValue",
    "checker",
    "concurrent_generator",
    "history_keys",
    "is_tuple",
    "sequential_generator",
    "subhistories",
    "subhistory",
    "tuple",
]
