"""Two sides' runs in ratios: median [smallest, largest] over the seeds, the reference's figure over ours of the same seed.

python benchmarks/ratios.py                      # the tables of docs/laboratory/benchmarks.md, from benchmarks/results/*.json
python benchmarks/ratios.py docs/laboratory/benchmarks.md   # write them there
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from statistics import fmean, median
from typing import Any

RESULTS = Path(__file__).parent / "results"
MARKS = "<!-- tables: python benchmarks/ratios.py docs/laboratory/benchmarks.md -->", "<!-- end of the tables -->"
VARIANTS = ("as it is", "folded, channels_last", "compiled", "bfloat16", "compiled bfloat16")


def in_words(values: Sequence[float]) -> str:
    """Write ratios to three figures."""
    middle, low, high = (f"{value:#.3g}".rstrip(".") for value in (median(values), min(values), max(values)))
    return f"{middle} [{low}, {high}]" if len(values) > 1 else f"{middle} (one run)"


def paired(runs: Iterable[Mapping[str, Any]], key: str, ours: str = "normwise", theirs: str = "reference") -> list[float]:
    """The other side's figure over ours, seed by seed. Where a seed has several runs of one side, the last."""
    both = [{run["seed"]: run[key] for run in runs if run["who"] == who} for who in (ours, theirs)]
    return [both[1][seed] / mine for seed, mine in both[0].items() if seed in both[1] and mine]


def said(runs: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    """A line for each of ours and each figure: how many times the others' it is."""
    sides = list(dict.fromkeys(run["who"] for run in runs))
    ours = [who for who in sides if who.startswith("normwise")]
    return [
        f"{key}: {theirs} / {mine} = {in_words(ratios)}"
        for key in keys
        for theirs in sides
        for mine in ours
        if theirs not in ours and (ratios := paired(runs, key, mine, theirs))
    ]


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found | found.get("settings", {})


def _row(*places: str) -> str:
    return f"| {' | '.join(places)} |"


def _table(*heads: str, rows: Iterable[str]) -> list[str]:
    return [_row(*heads), "|---" * len(heads) + "|", *rows, ""]


def _radius(record: Mapping[str, Any]) -> str:
    scaled = Fraction(record["eps"] * 255).limit_denominator(100)
    return f"{scaled}/255" if abs(scaled / 255 - record["eps"]) < 1e-9 and scaled.denominator == 1 else f"{record['eps']:g}"


def _machine(record: Mapping[str, Any]) -> str:
    return f"{record['rows']:,} rows, {record['threads']} thread{'s' * (record['threads'] > 1)}"


def _gradients(name: str) -> list[str]:
    """The fastest peer and ours; the float32 bound is none for half precision."""
    record = _read(name)
    every = {row["who"]: row for row in record["pgd"]}
    fastest = next(row for row in record["pgd"] if row["to_fastest_peer"] == 1)
    rows = []
    for row in (fastest, *(every[f"normwise, {variant}"] for variant in VARIANTS)):
        low, high = row["spread"]
        speed = f"{row['gradients_per_second']:,.0f} [{low:,.0f}, {high:,.0f}]"
        share = "–" if "bfloat16" in row["who"] else f"{100 * row['share_of_bound']:.0f}%"
        who = f"{row['who']}, the fastest peer" if row is fastest else row["who"]
        rows.append(_row(f"`{name}`", who, speed, f"{row['to_fastest_peer']:.2f}", share))
    return rows


def _beside(name: str) -> str:
    """A record of APGD or AutoAttack: seconds (median over the seeds) and robust accuracy (mean), and the ratio of the seconds."""
    record = _read(name)
    runs, key = record.get("runs") or record["apgd"], "process_seconds" if "runs" in record else "seconds"
    what = f"AutoAttack-{record.get('version', 'standard')}" if "runs" in record else f"APGD-CE, {record['steps']} steps"
    places = []
    for who in ("normwise", "reference"):
        mine = [run for run in runs if run["who"] == who]
        seconds = median(run[key] for run in mine)
        places.append(f"{seconds:#.3g}".rstrip(".") + f" s, {100 * fmean(run['robust'] for run in mine):.1f}%")
    on = f"{what}, `{record['network']}`, {_radius(record)}, {_machine(record)}"
    return _row(on, f"`{name}`", *places, in_words(paired(runs, key)))


def _parts(name: str) -> list[str]:
    """AutoAttack part by part: rows that a part was given, CPU seconds, images forward and backward; means over the seeds."""
    runs = _read(name)["runs"]
    rows = []
    for part in dict.fromkeys(one["part"] for run in runs for one in run["parts"]):
        places, seconds = [part], []
        for who in ("normwise", "reference"):
            mine = [one for run in runs if run["who"] == who for one in run["parts"] if one["part"] == part]
            mean = (
                {key: fmean(one[key] for one in mine) for key in ("rows", "cpu_seconds", "forwards", "backwards")}
                if mine
                else {}
            )
            seconds.append(mean.get("cpu_seconds", 0.0))
            images = (
                f"{mean['rows']:g} rows, {mean['cpu_seconds']:.2f} s, {mean['forwards']:,.0f} / {mean['backwards']:,.0f}"
                if mine
                else "–"
            )
            places.append(images)
        rows.append(_row(*places, f"{seconds[1] / seconds[0]:#.3g}" if all(seconds) else "–"))
    return rows


def _norms() -> Iterable[str]:
    """What each norm costs: milliseconds of a step and of two gradients, and how many times BatchNorm's they are."""
    norms = _read("norms")["norms"]
    for name, costs in norms.items():
        places = (f"{middle:.0f} ms, {middle / norms['bn'][key][0]:.2f}" for key, (middle, _, _) in costs.items())
        yield _row(f"`{name}`", *places)


def tables() -> str:
    """The tables of docs/laboratory/benchmarks.md."""
    beside = [f"apgd-{name}" for name in ("resnet20", "cnn_a", "cnn_a-1000")]
    beside += [
        f"autoattack-{name}"
        for name in ("resnet20-8", "resnet20-8-1000", "resnet20-1", "cnn_a", "cnn_a-1000", "mnist", "rand")
    ]
    lines = _table(
        "record", "PGD", "gradients/s", "times the fastest peer", "share of the float32 bound",
        rows=[row for name in ("pgd-resnet20", "pgd-resnet18") for row in _gradients(name)],
    )  # fmt: skip
    lines += _table("attack", "record", "ours", "reference", "reference / ours", rows=map(_beside, beside))
    if (RESULTS / "autoattack-parts.json").exists():
        record = _read("autoattack-parts")
        on = f"AutoAttack on `{record['network']}`, {_radius(record)}, {_machine(record)} (`autoattack-parts`)"
        heads = (
            f"{on}: part",
            "ours: rows, CPU seconds, images forward / backward",
            "reference",
            "reference / ours, CPU seconds",
        )
        lines += _table(*heads, rows=_parts("autoattack-parts"))
    record = _read("norms")
    on = f"ResNet-8, {record['rows']} images, {record['hardware']['threads']} thread (`norms`)"
    heads = (
        f"{on}: norm",
        "training step, times BatchNorm's",
        "gradient in pixels",
        "the same on the copy that is searched",
    )
    lines += _table(*heads, rows=_norms())
    return "\n".join(lines)


def within(text: str) -> str:
    """A page with the tables between their marks."""
    start, end = map(re.escape, MARKS)
    whole = f"{MARKS[0]}\n{tables()}{MARKS[1]}"
    return re.sub(f"{start}.*?{end}", lambda _: whole, text, flags=re.DOTALL)


def main(page: str = "") -> None:
    if not page:
        print(tables())
        return
    Path(page).write_text(within(Path(page).read_text()))


if __name__ == "__main__":
    main(*sys.argv[1:])
