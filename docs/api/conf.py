"""The API reference, from the docstrings: ``make docs`` builds it.

In the docstrings a name in single backticks is a parameter of the function that is described, or a
name of this package, with as much before it as is needed: `set_full`, `checker.set_full`.
Everything else has double backticks. A name that is neither is an error, so that no reference leads
nowhere.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import inspect
import pydoc
import re
import sys
import typing
from pathlib import Path
from typing import Any

from sphinx.pycode import ModuleAnalyzer
from sphinx.util.nodes import make_refnode

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bindings/python/src"))

project = "jepsen_antithesis"
importlib.import_module(project)
version = re.findall(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[0]
copyright = ""
extensions = ["sphinx.ext.autodoc"]

html_theme = "alabaster"
html_theme_options = {"page_width": "1100px", "fixed_sidebar": True}
html_show_sphinx = html_show_copyright = html_copy_source = False
html_title = f"{project} {version}"

autodoc_default_options = {"members": True, "undoc-members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# Shown by their names.
_ALIASES = """
    Check Complete Gen OnEvent Op OptSpec Options Opts Process Result Routes Step Target Test TestFn
    TestsFn Thread ThreadFilter
"""
autodoc_type_aliases = {name: name for name in _ALIASES.split()}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
toc_object_entries_show_parents = "hide"

nitpicky = True
# Types in signatures, most of which are Python's own. Nothing is fetched to link to them.
nitpick_ignore_regex = [(r"py:(?!obj$).*", ".*")]
nitpick_ignore = [("py:obj", f"{project}.reconnect.Conn")]  # a type variable

_NAME = re.compile(r"(?<![`:\w])`([^`\s<>]+)`(?![`_])")
_PLURAL = re.compile(r"(``[^`]+``|\*\w+\*|:py:obj:`[^`]+`)(\w?)")


def _mark(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Makes references of the names in a docstring, and emphasises parameters."""
    parameters: set[str] = set()
    if what in ("class", "function", "method", "exception"):
        for function in (obj, *typing.get_overloads(obj)):
            with contextlib.suppress(TypeError, ValueError):
                parameters.update(inspect.signature(function).parameters)

    def marked(match: re.Match[str]) -> str:
        return f"*{match[1]}*" if match[1] in parameters else f":py:obj:`{match[1]}`"

    def apart(match: re.Match[str]) -> str:
        # A letter may follow, as in "the `tuple`s".
        return f"{match[1]}\\ {match[2]}" if match[2] else match[1]

    lines[:] = [_PLURAL.sub(apart, _NAME.sub(marked, line)) for line in lines]


def _plain(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str, returned: str
) -> tuple[str | None, str | None]:
    """A signature with the names of aliases, also within other types."""
    forward = re.compile(r"TypeAliasForwardRef\('(\w+)'\)")
    return (
        signature and forward.sub(r"\1", signature),
        returned and forward.sub(r"\1", returned),
    )


def _find(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Looks for a name outwards from the module where it is used, then anywhere, if it is one of a
    single thing.
    """
    domain = env.domains["py"]
    target = node["reftarget"]
    if node.get("refdomain") != "py" or (node["reftype"] != "obj" and hasattr(builtins, target)):
        return None
    scope = node.get("py:module") or project
    names = []
    while scope:
        names.append(f"{scope}.{target}")
        scope = scope.rpartition(".")[0]
    found = [name for name in names if name in domain.objects][:1]
    if not found:
        found = [name for name in domain.objects if name.endswith(f".{target}")]
        exported = pydoc.locate(f"{project}.{target}")
        if exported is not None:
            found = [name for name in found if pydoc.locate(name) is exported]
    if not found or any(pydoc.locate(name) is not pydoc.locate(found[0]) for name in found):
        return None
    entry = domain.objects[found[0]]
    return make_refnode(
        app.builder, node["refdoc"], entry.docname, entry.node_id, content, found[0]
    )


def _share_comments(app: Any) -> None:
    """Makes the docstrings of constants and type aliases known to the packages that export them."""
    for package in list(sys.modules.values()):
        if not package.__name__.startswith(project) or not hasattr(package, "__path__"):
            continue
        exported = ModuleAnalyzer.for_module(package.__name__)
        exported.analyze()
        for module in [m for m in vars(package).values() if inspect.ismodule(m)]:
            if module.__name__.startswith(f"{package.__name__}."):
                analyzer = ModuleAnalyzer.for_module(module.__name__)
                for at, comment in analyzer.find_attr_docs().items():
                    if not at[0] and at[1] in getattr(package, "__all__", ()):
                        exported.attr_docs.setdefault(at, comment)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", _share_comments)
    app.connect("autodoc-process-docstring", _mark)
    app.connect("autodoc-process-signature", _plain)
    app.connect("missing-reference", _find)
