"""What pages show that is made: the table of claims in README.md, the picture of a page, the public names in docs/reference/python.md.

python benchmarks/readme.py table     # writes the table into README.md, from results/reproduce/*/claims.json
python benchmarks/readme.py picture   # makes docs/page.png from results/bench-digits, with a headless Chromium
python benchmarks/readme.py fuzz      # writes the table of docs/reference/security.md, from benchmarks/results/fuzz-*.json
python benchmarks/readme.py names     # writes the names into docs/reference/python.md, from normwise's docstrings
"""

import inspect
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import normwise
from normwise.registry import Registry
from normwise.report.claims import figure

ROOT = Path(__file__).parents[1]
MARKS = "<!-- table: python benchmarks/readme.py table -->", "<!-- end of the table -->"
FUZZ = "<!-- fuzz: python benchmarks/readme.py fuzz -->", "<!-- end of fuzz -->"
NAMES = "<!-- names: python benchmarks/readme.py names -->", "<!-- end of the names -->"
GROUPS = {
    "Train": ("training.",),
    "Evaluate and audit": ("evaluation.", "auditing.", "diagnostics.", "attacks.bpda"),
    "Attacks": ("attacks",),
    "Threat models": ("threats",),
    "Norms": ("norms",),
    "Networks": ("models",),
    "Data": ("data",),
    "Runs with settings, and the rest": ("",),
}
PAPERS = {"robustnorm": "RobustNorm", "nofrost": "NoFrost", "fragile-features": "Fragile features", "abnn": "ABNN"}
OPEN, PREMISE = ("not decided", "not attempted"), "premise not met at this size"
SIZES = ("s", "m", "l")  # of docs/laboratory/method.md, the smallest first; records of before decide nothing
SIZE = 1280, 880  # pixels of the picture


def table() -> str:
    """The claims with their verdicts: of several sizes the first that decides a claim, else the first that asks it."""
    found: dict[str, dict] = {}
    for path in (ROOT / "results/reproduce" / size / "claims.json" for size in SIZES):
        for one in json.loads(path.read_text()) if path.exists() else ():
            known = found.get(one["number"])
            if known is None or (known["verdict"] in (*OPEN, PREMISE) and one["verdict"] not in OPEN):
                found[one["number"]] = one
    verdicts = [one["verdict"] for one in found.values()]
    unmet, decided = verdicts.count(PREMISE), sum(one not in (*OPEN, PREMISE) for one in verdicts)
    told = f"Of {len(found)} claims, {decided or 'none'} {'is' if decided < 2 else 'are'} decided so far."
    lines = [f"{told} For {unmet}, what the claim takes for granted does not hold at the size tried.", ""]
    lines += [
        "| | claim | measured: the difference under the strongest attack, or the premise | verdict | size |",
        "|---|---|---|---|---|",
    ]
    for one in found.values():
        measured = figure(one["strongest"]) if one["strongest"] else "–"
        measured = one["why"] if one["verdict"] == PREMISE else measured
        told = one["number"], f"{PAPERS[one['system']]}: {one['claim']}", measured, one["verdict"], one["size"]
        lines.append(f"| {' | '.join(told)} |")
    return "\n".join(lines)


def groups() -> dict[str, list[str]]:
    """Every public name, in its group."""
    left, found = dict(normwise._HOME), dict[str, list[str]]()
    for title, rooms in GROUPS.items():
        found[title] = [name for name, room in left.items() if any(f"{room}.".startswith(start) for start in rooms)]
        left = {name: room for name, room in left.items() if name not in found[title]}
    return found


def names() -> str:
    """Every public name with the first sentence of its docstring."""
    lines = list[str]()
    for title, mine in groups().items():
        lines += [f"**{title}**", "", "| name | what it is |", "|---|---|"]
        for name in sorted(mine, key=str.lower):
            value = getattr(normwise, name)
            own = inspect.getdoc(value) or ""
            if isinstance(value, Registry):
                own = f"Every {value.kind} by its name"
            first = " ".join(own.split("\n\n")[0].split()).replace("|", "\\|")
            sentence = re.split(r"(?<!e\.g)\. ", first)[0]
            lines.append(f"| `{name}` | {sentence.rstrip('.:')} |")
        lines.append("")
    return "\n".join(lines)


def fuzz() -> str:
    """How often each reader was fed without a fault, by the records; a reader that has several is shown by its longest."""
    found: dict[str, dict] = {}
    for path in sorted((ROOT / "benchmarks/results").glob("fuzz-*.json")):
        for reader, one in json.loads(path.read_text())["readers"].items():
            if not one["status"] and one["executions"] > found.get(reader, {}).get("executions", 0):
                found[reader] = one
    lines = [
        "| reader | files fed | a second | processor seconds | files kept | peak memory, MiB |",
        "|---|---|---|---|---|---|",
    ]
    keys = "executions", "executions_per_second", "processor_seconds", "corpus_files", "peak_mib"
    return "\n".join(
        [*lines, *(f"| {name} | {' | '.join(f'{one[key]:,}' for key in keys)} |" for name, one in found.items())]
    )


def within(page: str, marks: tuple[str, str] = MARKS, made: Callable[[], str] = table) -> str:
    """A page with its made part made anew."""
    head, rest = page.split(marks[0])
    return f"{head}{marks[0]}\n{made()}\n{marks[1]}{rest.split(marks[1])[1]}"


def picture() -> None:
    """The first screen of the page of `make demo`, in the light."""
    from normwise.cli.reports import Reports, report

    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with TemporaryDirectory() as place:
        (path,), _ = report(Reports(runs=(str(ROOT / "results/bench-digits"),)), Path(place) / "page")
        options = f"--headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir={place}/profile".split()
        options += ["--blink-settings=preferredColorScheme=1", f"--window-size={SIZE[0]},{SIZE[1]}"]
        drawn = f"--screenshot={ROOT / 'docs/page.png'}"
        subprocess.run([browser, *options, drawn, path.as_uri()], check=True, capture_output=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["table"]:
        (ROOT / "README.md").write_text(within((ROOT / "README.md").read_text()))
    elif sys.argv[1:] == ["fuzz"]:
        page = ROOT / "docs/reference/security.md"
        page.write_text(within(page.read_text(), FUZZ, fuzz))
    elif sys.argv[1:] == ["names"]:
        page = ROOT / "docs/reference/python.md"
        page.write_text(within(page.read_text(), NAMES, names))
    elif sys.argv[1:] == ["picture"]:
        picture()
    else:
        sys.exit("give table, picture, names or fuzz")
