"""A whole test with properties."""

from __future__ import annotations

from .. import types
from ..options import check_test
from .checkers import checker_plus
from .clients import client


def test(test: types.Test) -> types.Test:
    """A copy of `test` whose client and checker are wrapped by `client` and `checker_plus`.
    ``test["fs"]``, if it is there, names the ``f``s of the clients' operations.

    The wrapped test has the same history and the same results. The ``antithesis`` command wraps its
    test by this. Raises OptionError as a run of `test` would.
    """
    check_test(test)
    wrapped = dict(test)
    if "client" in test:
        wrapped["client"] = client(test["client"], test.get("fs", ()))
    if "checker" in test:
        wrapped["checker"] = checker_plus(test["checker"])
    return wrapped
