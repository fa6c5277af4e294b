"""Manual pages, from what the command says with --help and what the header says of itself."""

from __future__ import annotations

import re
import time
from pathlib import Path

from project import COMMAND, ROOT, SUMMARY, VERSION, run


def write(command: Path, out: Path, date: int) -> None:
    """jepsen-composer(1) and jepsen_antithesis(3) below `out`, a share/man."""
    day = time.strftime("%Y-%m-%d", time.gmtime(date))
    pages = {
        f"man1/{COMMAND}.1": _command(run(command, "--help"), day),
        "man3/jepsen_antithesis.3": _header(
            (ROOT / "include" / "jepsen_antithesis.h").read_text(), day
        ),
    }
    for name, text in pages.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text)


def _command(help: str, day: str) -> str:
    head, _, rest = help.partition("\n\n")
    name, _, summary = head.partition(": ")
    page = [
        _title(name, 1, day),
        f".SH NAME\n{_escape(name)} \\- {_escape(summary)}\n.SH SYNOPSIS",
        *(
            f".B {_escape(line.strip())}\n.br"
            for line in rest.splitlines()
            if re.match(f"  {name} ", line)
        ),
        ".SH DESCRIPTION",
        _verbatim(rest),
        ".SH SEE ALSO\n.BR jepsen_antithesis (3),\n.BR mkfifo (1),\n.BR fifo (7)\n",
    ]
    return "\n".join(page)


def _header(header: str, day: str) -> str:
    """The comment that the header opens with, and its declarations as they stand."""
    lines = header.splitlines()
    end = next(i for i, line in enumerate(lines) if not line.startswith("//"))
    about = "\n".join(line.removeprefix("//").removeprefix(" ") for line in lines[:end])
    declarations = header.partition("#include <stdint.h>\n")[2].partition("#ifdef __cplusplus\n}")[
        0
    ]
    return "\n".join(
        [
            _title("jepsen_antithesis", 3, day),
            f".SH NAME\njepsen_antithesis \\- {_escape(SUMMARY)}",
            ".SH SYNOPSIS\n.B #include <jepsen_antithesis.h>\n.PP\n"
            ".B cc harness.c $(pkg\\-config \\-\\-cflags \\-\\-libs jepsen\\-antithesis)",
            ".SH DESCRIPTION",
            _verbatim(about),
            ".SH DECLARATIONS",
            _verbatim(declarations),
            f".SH SEE ALSO\n.BR {_escape(COMMAND)} (1),\n.BR fifo (7)\n",
        ]
    )


def _title(name: str, section: int, day: str) -> str:
    return f'.TH {_escape(name).upper()} {section} {day} "jepsen\\-antithesis {VERSION}"'


def _verbatim(text: str) -> str:
    return f".nf\n{_escape(text.strip(chr(10)))}\n.fi"


def _escape(text: str) -> str:
    """Troff's text: backslashes, hyphens, and lines that would be requests."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)
