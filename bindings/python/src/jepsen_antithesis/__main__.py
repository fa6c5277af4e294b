"""``python -m jepsen_antithesis``: what needs no test. A test has its commands in its own program;
see `cli`.
"""

from __future__ import annotations

from . import cli

if __name__ == "__main__":
    cli.run(cli.serve_cmd())
