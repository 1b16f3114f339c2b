"""A name stays a name: whatever a record holds, no page, CSV, Markdown or LaTeX takes it for markup."""

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from normwise.report import audit, page, tables, texts
from normwise.report.claims import to_html
from records import audited, claims, result

NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style>",
    "]]>",
    "{{7*7}}",
    "{% raw %}",
    "&amp;lt;",
)
NASTY += (
    "a|b",
    "\\|",
    "`x`",
    "[a](http://b)",
    "*",
    "\\",
    "\\\\",
    "100%",
    "$x$",
    "a_b^c~d#e&f{g}",
    "[",
    "\r\n",
    ",",
    '"',
    "=1+1",
)
HERE = Path()
words = st.text(st.characters(exclude_categories=("Cs",)), max_size=12) | st.sampled_from(NASTY)


class Skeleton(HTMLParser):
    """Tags with the names of their attributes, and the text between them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, [name for name, _ in attrs]))

    def handle_data(self, data):
        self.text.append(data)


def tags(text):
    return Skeleton(text).tags


PLAIN = {
    "audit": tags(audit.to_html([audited("x")], HERE)),
    "audits": tags(audit.to_html([audited("x"), audited("x")], HERE)),
    "claims": tags(to_html(*claims("x"))),
}


@settings(max_examples=25, deadline=None)
@given(words.filter(lambda text: text.strip()))
@example("".join(NASTY))
def test_no_text_changes_the_tags_of_a_page(text):
    assert tags(audit.to_html([audited(text)], HERE)) == PLAIN["audit"]
    assert tags(audit.to_html([audited(text), audited(text)], HERE)) == PLAIN["audits"]
    assert tags(to_html(*claims(text))) == PLAIN["claims"]


@pytest.mark.parametrize("text", NASTY)
def test_a_hostile_name_is_shown_as_it_is(text):
    for whole in (audit.to_html([audited(text)], HERE), to_html(*claims(text))):
        assert text.replace("\r\n", "\n") in "".join(Skeleton(whole).text).replace("\r\n", "\n")


@pytest.mark.parametrize("text", NASTY)
def test_a_hostile_name_leaves_a_report_whole(text, monkeypatch, tmp_path):
    monkeypatch.setattr(page.figures, "draw", lambda found, out: [])

    def skeleton(label):
        results = [result(label=label, warn=True), result("gn", label="other")]
        record = {"title": label, "provenance": {"command": label}, "failures": {label: label}}
        return tags(page.write(tmp_path, results, **record).read_text())

    assert skeleton(text) == skeleton("plain")


def markdown_cells(line):
    """Read a row of a Markdown table: cells end at a bar, unless a backslash stands before it."""
    inner = [part.strip() for part in re.findall(r"((?:\\.|[^|\\])*)\|", line)][1:]
    assert not any(re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]<>$~]", part) for part in inner)
    return [re.sub(r"\\(.)", r"\1", part) for part in inner]


def latex_cells(line):
    """Read a row of a LaTeX table: refuses a command, a group or a character that is not one of ours."""
    assert line.endswith(r" \\")
    named = {
        "textbackslash": "\\",
        "textasciitilde": "~",
        "textasciicircum": "^",
        "textless": "<",
        "textgreater": ">",
        "textbar": "|",
    }
    token = re.compile(
        r"\\(?P<name>[a-z]+)\{\}|\\(?P<char>[&%$#_{}])|\{(?P<kept>[\[*])\}|(?P<dash>--)|(?P<minus>\$-\$)|(?P<end>&)|(?P<plain>[^\\{}$&#^_%~<>|\[*\"])"
    )
    found, at, end = [""], 0, len(line) - 2
    while at < end and (part := token.match(line, at, end)):
        at = part.end()
        if part["end"]:
            found.append("")
        else:
            dash = ("–" if part["dash"] else "") + ("−" if part["minus"] else "")
            found[-1] += named[part["name"]] if part["name"] else part["char"] or part["kept"] or part["plain"] or dash
    assert at == end, line[at:]
    return [cell.strip() for cell in found]


@given(st.lists(words, min_size=2, max_size=2))
@example(["\\", "|"])
@example(["\\textbf{a}", "[b"])
def test_tables_read_back_to_the_names_they_were_made_of(names):
    shown = [texts.one_line(name) for name in names]
    lines = texts.to_markdown(["a", "b"], [names], [False, True], [names[0]]).splitlines()
    assert markdown_cells(lines[2]) == shown
    tex = texts.to_latex(["a", "b"], [names], [False, True], [names[0]]).splitlines()
    assert not tex[5].lstrip().startswith(("[", "*"))  # after the end of a line these are options
    if not any(mark in name for mark in ("--", '"', "''") for name in shown):  # typeset alike, not told apart
        assert latex_cells(tex[5]) == shown
    assert tex[6:8] == [r"\bottomrule", r"\end{tabular}"]
    back = list(csv.reader(io.StringIO(texts.to_csv([dict(zip(("a", "b"), names, strict=True))]), newline="")))
    assert back == [["a", "b"], shown] or not any(shown)


def test_one_line_of_every_special_character_in_latex():
    assert texts.latex("\\ & % $ # _ { } ~ ^") == (
        r"\textbackslash{} \& \% \$ \# \_ \{ \} \textasciitilde{} \textasciicircum{}"
    )


def test_a_name_from_a_record_keeps_csv_in_shape():
    row = next(csv.DictReader(io.StringIO(tables.to_csv([result(label='a,"b"\n=1')]))))
    assert row["norm"] == 'a,"b" =1'


def test_a_latex_table_says_which_engine_its_letters_need():
    assert texts.to_latex(["Größe – §"], [["a"]], [False]).splitlines()[0] == "% needs \\usepackage{booktabs}"
    assert texts.to_latex(["α"], [["a"]], [False]).splitlines()[0] == "% needs \\usepackage{booktabs}, LuaLaTeX or XeLaTeX"
