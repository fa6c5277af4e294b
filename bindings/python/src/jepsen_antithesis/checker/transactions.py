"""Transactions: whether a consistency model allows their history."""

from __future__ import annotations

from collections.abc import Iterable

from ..history import History
from ..types import Test
from .checking import Check, Opts, Result


def list_append(
    *,
    consistency_models: str | Iterable[str] = ("strict-serializable",),
    anomalies: str | Iterable[str] = (),
    cycle_search_timeout: float = 1.0,
) -> Check:
    """Transactions of reads and appends (see `jepsen_antithesis.elle.list_append`): the history
    has to be one of all `consistency_models`, and to have none of the `anomalies`.

    A history with anomalies that count has ``valid`` False, and

    ================== ===========================================================================
    ``anomaly_types``  their names, which are Elle's
    ``anomaly_counts`` how often each was found
    ``anomalies``      instances of each, at most 64, each with its ``explanation`` in words
    ``not``            the weakest consistency models that the history is not one of
    ``also_not``       the others that it is not one of
    ================== ===========================================================================

    It is unknown when no transaction depends on another one (``empty-transaction-graph``). Cycles
    are looked for in each strongly connected component for `cycle_search_timeout` seconds; whether
    there are any, and which models that rules out, is certain however short that is.

    In the directory ``elle`` of the test's is a file for each anomaly, and a picture of each cycle.

    Raises ValueError or TypeError for options there are not, and ImportError without rustworkx.
    """
    from ..elle import list_append as elle
    from ..elle.results import Options

    options = Options(consistency_models, anomalies, cycle_search_timeout)

    def check(test: Test, history: History, opts: Opts) -> Result:
        return elle.check(history, options, opts)

    return check


def rw_register(
    *,
    consistency_models: str | Iterable[str] = ("strict-serializable",),
    anomalies: str | Iterable[str] = (),
    cycle_search_timeout: float = 1.0,
    wfr_keys: bool = False,
    sequential_keys: bool = False,
    linearizable_keys: bool = False,
) -> Check:
    """Transactions of reads and writes (see `jepsen_antithesis.elle.rw_register`). Options and
    result are those of `list_append`.

    A register does not show in which order its versions came. It can be assumed of every key that

    ===================== ========================================================================
    ``wfr_keys``          what a transaction reads of it comes before what it writes to it
    ``sequential_keys``   each process sees later and later versions of it
    ``linearizable_keys`` a transaction that begins after another one sees no earlier version
    ===================== ========================================================================

    Where that is wrong, there are ``cyclic-versions`` or other anomalies, which are no bugs of a
    database that does not promise it.
    """
    from ..elle import rw_register as elle
    from ..elle.results import Options

    options = Options(consistency_models, anomalies, cycle_search_timeout)

    def check(test: Test, history: History, opts: Opts) -> Result:
        return elle.check(
            history,
            options,
            opts,
            wfr_keys=wfr_keys,
            sequential_keys=sequential_keys,
            linearizable_keys=linearizable_keys,
        )

    return check
