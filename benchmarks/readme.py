"""What README.md shows of the records: the table of claims, and the picture of a page.

python benchmarks/readme.py table     # writes the table into README.md, from results/reproduce/*/claims.json
python benchmarks/readme.py picture   # makes docs/page.png from results/bench-digits, with a headless Chromium
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from normwise.report.claims import figure

ROOT = Path(__file__).parents[1]
MARKS = "<!-- table: python benchmarks/readme.py table -->", "<!-- end of the table -->"
PAPERS = {"robustnorm": "RobustNorm", "nofrost": "NoFrost", "fragile-features": "Fragile features", "abnn": "ABNN"}
OPEN, PREMISE = ("not decided", "not attempted"), "premise not met at this size"
SIZES = ("s", "m", "l")  # of docs/laboratory/method.md, the smallest first; records of before decide nothing
SIZE = 1280, 800  # pixels of the picture


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


def within(page: str) -> str:
    """A page with its table made anew."""
    head, rest = page.split(MARKS[0])
    return f"{head}{MARKS[0]}\n{table()}\n{MARKS[1]}{rest.split(MARKS[1])[1]}"


def picture() -> None:
    """The first screen of the page of `make demo`, in the light."""
    from normwise.cli.reports import Reports, report

    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with TemporaryDirectory() as place:
        (path,) = report(Reports(runs=(str(ROOT / "results/bench-digits"),)), Path(place) / "page")
        options = f"--headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir={place}/profile".split()
        options += ["--blink-settings=preferredColorScheme=1", f"--window-size={SIZE[0]},{SIZE[1]}"]
        drawn = f"--screenshot={ROOT / 'docs/page.png'}"
        subprocess.run([browser, *options, drawn, path.as_uri()], check=True, capture_output=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["table"]:
        (ROOT / "README.md").write_text(within((ROOT / "README.md").read_text()))
    elif sys.argv[1:] == ["picture"]:
        picture()
    else:
        sys.exit("give table or picture")
