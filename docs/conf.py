"""The documentation as a site: `make docs`."""

import inspect
import re
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "src"))

import normwise  # noqa: E402

project, author, release = "normwise", "The normwise authors", normwise.__version__
copyright = f"2026, {author}"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax"]
exclude_patterns = ["_build", "jupyter_execute", "reference/_names.md"]
html_theme, html_title = "furo", "normwise"
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode, nb_execution_timeout, nb_execution_raise_on_error = "force", 600, True
nb_merge_streams = True
autodoc_preserve_defaults = True


def names() -> str:
    """Every public name in its group, as autodoc directives."""
    lines = list[str]()
    for title, mine in runpy.run_path(str(HERE.parent / "benchmarks/readme.py"))["groups"]().items():
        lines += [f"## {title}", "", "```{eval-rst}"]
        for name in mine:
            value = getattr(normwise, name)
            routine = "autofunction" if callable(value) and inspect.isroutine(value) else "autodata"
            kind = "autoclass" if inspect.isclass(value) else routine
            lines += [f".. {kind}:: normwise.{name}", *["   :no-value:"] * (kind == "autodata"), ""]
        lines += ["```", ""]
    return "\n".join(lines)


(HERE / "reference/_names.md").write_text(names())


def as_rst(app, what, name, obj, options, lines):
    """Our docstrings are plain text: words in backticks, blocks that are indented, tables of options."""
    text, found = "\n".join(lines), list[str]()
    for block in re.split(r"\n\s*\n", text):
        first, *rest = block.strip("\n").splitlines() or [""]
        if first.startswith(">>>"):
            found += [block]
        elif rest and all(line.startswith("    ") for line in rest):
            entries = re.split(r"\n    (?=\S)", "\n" + "\n".join(rest))[1:]
            pairs = [re.match(r"(\S+)\s*(.*)", one, re.S) for one in entries]
            found += [plain(first), *(f"- ``{pair[1]}``: {plain(' '.join(pair[2].split()))}" for pair in pairs if pair)]
        else:
            found += [plain(" ".join(line.strip() for line in block.splitlines()))]
    lines[:] = "\n\n".join(found).splitlines()


def plain(text: str) -> str:
    """Text whose only mark-up is code in backticks."""
    parts = re.split(r"`+([^`]+)`+", text)
    return "".join(f"``{part}``" if i % 2 else re.sub(r"([*_|\\])", r"\\\1", part) for i, part in enumerate(parts))


def setup(app):
    """Read docstrings our way."""
    app.connect("autodoc-process-docstring", as_rst)
