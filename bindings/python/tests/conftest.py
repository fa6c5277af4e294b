from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from driving import Driver


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    """A control directory, with everything that a test starts in it ended afterwards."""
    with Driver(tmp_path) as driver:
        yield driver
