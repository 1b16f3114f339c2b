"""What pages show that is made: tables of measured figures, the public names, the picture of a page.

python benchmarks/readme.py table     # writes the claims into README.md, from results/reproduce/*/claims.json
python benchmarks/readme.py picture   # makes docs/page.png from results/bench-digits, with a headless Chromium
python benchmarks/readme.py fuzz      # writes the readers into docs/reference/security.md, from benchmarks/results/fuzz-*.json
python benchmarks/readme.py names     # writes the names into docs/reference/python.md, from normwise's docstrings
python benchmarks/readme.py clips     # writes the fights into docs/reference/video.md, from benchmarks/results/clips-fights*.json
python benchmarks/readme.py images    # writes the digits there, from results/columns-digits
python benchmarks/readme.py norms     # writes the arms into docs/laboratory/norms-today.md, from benchmarks/results/norms-today.json
python benchmarks/readme.py cifar     # writes those of CIFAR-10 there, from benchmarks/results/norms-cifar.json
python benchmarks/readme.py adapters  # writes adapters into docs/reference/norms.md, from benchmarks/results/adapters.json
python benchmarks/readme.py moving    # writes the moving digits there, from results/columns-moving-digits
"""

import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import normwise
from normwise.registry import Registry
from normwise.report.claims import LOG, figure

ROOT = Path(__file__).parents[1]
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
METHODS = {
    "bn-standard": "no defence",
    "fine-tuned": "fine-tuned from the substitute",
    "extra-bn": "one more BatchNorm at each tap",
    "abnn": "ABNN, substitute of ultrasound clips",
    "abnn-published": "ABNN, substitute ResNet-20 of CIFAR-10, inflated",
    "bn-adversarial": "PGD training",
    "bn-multi": "training against `linf` and `roa`, their mean",
    "bn-multi-worst": "training against `linf` and `roa`, the worst",
    "multibn": "MultiBN, routes for clean, `linf` and `roa`",
    **{f"at-{kind}": f"training against `{kind}` alone" for kind in ("roa", "af", "spa", "multav", "l2")},
}
ATTACKERS = ("linf", "l2", "multav", "roa", "af", "spa")


def table() -> str:
    """The claims with their verdicts: of several sizes the first that decides a claim, else the first that asks it."""
    found: dict[str, dict] = {}
    for path in (ROOT / "results/reproduce" / size / "claims.json" for size in SIZES):
        for one in json.loads(path.read_text()) if path.exists() else ():
            known = found.get(one["number"])
            if known is None or (known["verdict"] in (*OPEN, PREMISE) and one["verdict"] not in OPEN):
                found[one["number"]] = one
    decided = [one for one in found.values() if one["verdict"] not in (*OPEN, PREMISE)]
    lines = [f"Of {len(found)} claims, {len(decided) or 'none'} {'is' if len(decided) < 2 else 'are'} decided so far.", ""]
    lines += ["| | claim | measured | verdict | size |", "|---|---|---|---|---|"]
    for one in decided:
        cells = one["number"], f"{PAPERS[one['system']]}: {one['claim']}", _measured(one), one["verdict"], one["size"]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for verdict, because in (
        (PREMISE, "what the claim takes for granted does not hold"),
        (OPEN[0], "the interval is too wide, or seeds are missing"),
    ):
        papers: dict[str, list[str]] = {}
        for one in found.values():
            if one["verdict"] == verdict:
                papers.setdefault(PAPERS[one["system"]], []).append(one["number"])
        named = "; ".join(f"{paper} {', '.join(numbers)}" for paper, numbers in papers.items())
        lines.append(f"- {verdict.capitalize()}: {named or 'none'}. That is, {because}.")
    return "\n".join(lines)


def _measured(one: dict) -> str:
    """The difference under the strongest attack, and what it is of; where the protocol's is of something else, such as a clock, that too."""
    sides = [side for side in (one["strongest"], one["protocol"]) if side]
    sides = sides[:1] if len({side["what"] for side in sides}) < 2 else sides
    return "; ".join(f"{figure(side)}: {side['what'].removeprefix(LOG)}" for side in sides) or "–"


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


def clips() -> str:
    """Clips of fights under several attackers."""
    rows = dict[str, list[dict]]()
    for path in sorted((ROOT / "benchmarks/results").glob("clips-fights*.json")):
        for name, one in json.loads(path.read_text())["rows"].items():
            rows.setdefault(name.split("-seed")[0], []).append(one)
    return _attacked(rows, {name: text for name, text in METHODS.items() if name in rows})


def images() -> str:
    """Digits under the same attackers."""
    return _benched(["columns-digits"], {"abnn": "ABNN, substitute of another seed"})


def moving() -> str:
    """Moving digits under the same attackers."""
    return _benched(
        ["columns-moving-digits", "columns-moving-digits-alone"], {"abnn": "ABNN, substitute of clips that move down or up"}
    )


def norms(record: str = "norms-today") -> str:
    """ViT and ConvNeXt with norms of today."""
    import norms_page  # beside this file, which docs/conf.py loads from elsewhere

    return norms_page.table(json.loads((ROOT / f"benchmarks/results/{record}.json").read_text()))


def cifar() -> str:
    """The same networks on CIFAR-10."""
    return norms("norms-cifar")


def adapters() -> str:
    """Adapters at each share of the adversarial route, and a network for each weight of adversarial images: means over seeds, in percent."""
    rows = dict[str, dict[str, list[dict]]]()
    for name, one in json.loads((ROOT / "benchmarks/results/adapters.json").read_text())["rows"].items():
        kind, share, _ = name.split("-")
        rows.setdefault(share, {}).setdefault(kind, []).append(one)
    lines = ["| share | mixture: clean | strongest attack | adapters: clean | strongest attack |", "|" + " --- |" * 5]
    for share, kinds in rows.items():
        columns = [
            _mean([[one[key]["value"]] for one in kinds[kind]])
            for kind in ("mixture", "adapters")
            for key in ("clean_accuracy", "robust_accuracy")
        ]
        lines.append(f"| {' | '.join([share, *columns])} |")
    return "\n".join(lines)


def _benched(folders: list[str], names: dict[str, str]) -> str:
    """What `normwise bench --domain` left in folders of results; of a method that several have, the first."""
    rows, known = dict[str, list[dict]](), dict[str, str]()
    each = [
        (folder, cell)
        for folder in folders
        for cell in json.loads((ROOT / "results" / folder / "results.json").read_text())["cells"]
    ]
    for folder, cell in each:
        name = re.sub(r"-seed\d+", "", cell["name"])
        if known.setdefault(name, folder) != folder:
            continue
        own, several = cell["evaluation"], cell["several"]
        sides = {"protocol": "protocol_accuracy", "strongest": "robust_accuracy"}
        columns = {"linf": own, **several["evaluations"]}
        found = {
            side: {kind: one[key] and list(one[key].values()) for kind, one in columns.items()}
            for side, key in sides.items()
        }
        found |= {
            "clean": [own["clean_accuracy"]["value"]],
            "mean": [several["mean"]["value"]],
            "union": [several["union"]["value"]],
            "training": cell["training"],
        }
        rows.setdefault(name, []).append(found)
    own = METHODS | {"bn-multi~2": METHODS["bn-multi-worst"]} | names
    return _attacked(rows, {name: text for name, text in own.items() if name in rows})


def _attacked(rows: dict[str, list[dict]], methods: dict[str, str]) -> str:
    """Of each method the mean over its seeds, in percent, under the protocol / under stronger searches too."""
    head = ["method", "seeds", "clean", *(f"`{kind}`" for kind in ATTACKERS), "mean", "union", "loss"]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for name, text in methods.items():
        seeds = rows[name]
        kept = [
            f"{_mean([one['protocol'][kind] or one['strongest'][kind] for one in seeds])} / {_mean([one['strongest'][kind] for one in seeds])}"
            for kind in ATTACKERS
        ]
        clean, mean, union = (_mean([one[key] for one in seeds]) for key in ("clean", "mean", "union"))
        loss = f"{sum(one['training']['loss'] for one in seeds) / len(seeds):.2f}"
        lines.append(f"| {' | '.join([text, str(len(seeds)), clean, *kept, mean, union, loss])} |")
    return "\n".join(lines)


def _mean(scores: list[list[float]]) -> str:
    """The mean of values with intervals, in percent."""
    return f"{100 * sum(value for value, *_ in scores) / len(scores):.1f}"


PARTS = {
    "table": ("README.md", table),
    "fuzz": ("docs/reference/security.md", fuzz),
    "names": ("docs/reference/python.md", names),
    "clips": ("docs/reference/video.md", clips),
    "images": ("docs/reference/video.md", images),
    "moving": ("docs/reference/video.md", moving),
    "norms": ("docs/laboratory/norms-today.md", norms),
    "cifar": ("docs/laboratory/norms-today.md", cifar),
    "adapters": ("docs/reference/norms.md", adapters),
}


def renewed(part: str) -> tuple[Path, str]:
    """The page that holds a part, and what it says with that part made anew."""
    page, made = ROOT / PARTS[part][0], PARTS[part][1]
    head, rest = page.read_text().split(start := f"<!-- {part}: python benchmarks/readme.py {part} -->")
    return page, f"{head}{start}\n{made()}\n{(end := f'<!-- end of {part} -->')}{rest.split(end)[1]}"


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
    if sys.argv[1:] == ["picture"]:
        picture()
    elif len(sys.argv) == 2 and sys.argv[1] in PARTS:
        page, text = renewed(sys.argv[1])
        page.write_text(text)
    else:
        sys.exit(f"give picture, {', '.join(PARTS)}")
