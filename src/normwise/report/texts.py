"""Tables as text for other programs: CSV, Markdown, LaTeX. A name stays a name in each of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

_MARKDOWN = {ord(c): f"\\{c}" for c in "\\`*_[]<>|~$&#"}
_LATEX = {ord(c): f"\\{c}" for c in "&%$#_{}"} | {
    ord("\\"): r"\textbackslash{}",
    ord("~"): r"\textasciitilde{}",
    ord("^"): r"\textasciicircum{}",
    ord("<"): r"\textless{}",
    ord(">"): r"\textgreater{}",
    ord("|"): r"\textbar{}",
    ord("["): "{[}",  # after a line's end it would open an option
    ord("*"): "{*}",  # likewise
    ord('"'): "''",
    ord("–"): "--",
    ord("−"): "$-$",
}


def one_line(text: object) -> str:
    """Write a text on one line: what cannot be printed becomes a space, and spaces at the ends go."""
    return "".join(c if c.isprintable() else " " for c in str(text)).strip()


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write one line per row, one column per key in the order in which keys appear; what a row lacks is empty."""
    columns = dict.fromkeys(column for row in rows for column in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: one_line(cell) if isinstance(cell, str) else cell for key, cell in row.items()} for row in rows)
    return text.getvalue()


def to_markdown(
    head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[bool], notes: Sequence[str] = ()
) -> str:
    """Write a Markdown table; columns of `numbers` are set right. `notes` follow it, a paragraph each."""
    rule = f"| {' | '.join('---:' if number else '---' for number in numbers)} |\n"
    first, *others = (f"| {' | '.join(markdown(cell) for cell in row)} |\n" for row in (head, *rows))
    return "".join([first, rule, *others, *(f"\n{markdown(note)}\n" for note in notes)])


def to_latex(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[bool], notes: Sequence[str] = ()) -> str:
    """Write a LaTeX table for the package booktabs; columns of `numbers` are set right. `notes` follow it, a paragraph each."""
    first, *others = (f"{' & '.join(latex(cell) for cell in row)} \\\\\n" for row in (head, *rows))
    columns = "".join("r" if number else "l" for number in numbers)
    cells = "".join(cell for row in (head, *rows, notes) for cell in row)
    engine = "" if all(ord(c) < 0x250 or c in "–—−…‘’“”" for c in cells) else ", LuaLaTeX or XeLaTeX"
    lines = [
        f"% needs \\usepackage{{booktabs}}{engine}\n",
        f"\\begin{{tabular}}{{{columns}}}\n",
        "\\toprule\n",
        first,
        "\\midrule\n",
    ]
    ends = [f"\n\\par{{\\footnotesize {latex(note)}\\par}}\n" for note in notes]
    return "".join([*lines, *others, "\\bottomrule\n", "\\end{tabular}\n", *ends])


def markdown(text: str) -> str:
    """Keep a text from ending a cell or becoming markup in Markdown."""
    return one_line(text).translate(_MARKDOWN)


def latex(text: str) -> str:
    """Keep a text from being a command in LaTeX."""
    return one_line(text).translate(_LATEX)
