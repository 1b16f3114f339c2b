"""The page of natural shifts: one HTML file that needs nothing else, made of `shifts.json` and the example images."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..records import write
from .apart import label
from .card import FIXED, UNKNOWN, Card, coupling, rows
from .frame import rendered
from .plot_style import SERIES, Drawn, bare, in_percent, mark, new, save, short, style
from .words import joined

RECORD, PAGE = "shifts.json", "shifts.html"
_STYLES = ("-", "--", ":", "-.")
Network = Mapping[str, Any]  # one network at one alpha, as `shifts.json` has it


def write_page(folder: Path, record: Mapping[str, Any], run: Path | None = None) -> Path:
    """Write `shifts.html` and its figures into a folder, with the example images of the `run`'s; returns the page's path."""
    networks: Sequence[Network] = record["networks"]
    figures = [
        (
            _severities(networks, folder),
            "Accuracy over severity",
            "Mean over the kinds of corruption, with 95% intervals; severity 0 is the clean image.",
        )
    ]
    curves = {name: states for name, states in _by_name(networks).items() if len(states) > 1}
    if curves:
        figures.append(
            (
                _alphas(curves, folder),
                "Accuracy over the share of batch statistics",
                "Alpha 0 uses running statistics, alpha 1 batch statistics. Filled: mean under corruption; rings: clean images.",
            )
        )
    page = rendered(
        PAGE,
        title="normwise shifts",
        record=record,
        unknown=UNKNOWN,
        under=_under(record),
        networks=networks,
        card=_card(record),
        levels=[f"Severity {severity}" for severity in networks[0]["severities"]],
        called=called,
        percent=_percent,
        figures=figures,
        baseline=record["settings"]["baseline"],
        stand_ins={kind: one["stand_in"] for kind, one in record["kinds"].items() if one["stand_in"]},
        coupled=any(one["coupled"] for one in networks),
        examples=_examples(run or folder, list(record["kinds"])),
    )
    return write(folder / PAGE, page)


def _under(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What stands under the headline, as (what, words)."""
    names = joined(dict.fromkeys(called(one) for one in record["networks"]))
    what = (
        f"{names}, on {record['n']} test images of {label(record['settings']['data'])}: clean, and with natural corruptions"
    )
    trust = "Nobody attacks here: this says nothing of robustness to an attack. Intervals are of 95%, and cover other test images."
    return [("Compared", f"{what} ({record['over']})."), ("How far to trust it", trust)]


def _card(record: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """The threat card: there is no attacker, and no radius limits the corruptions."""
    threat = "none: there is no attacker, and no eps limits how far a pixel moves; images are corrupted, the same for every network"
    nature = f"the kind and the severity of the corruption of a whole batch ({record['over']})"
    judged = f"{rows(record['n'], record['settings']['data'], record['batch_size'])}, the networks in eval mode"
    lines = Card(threat, (), ("nothing: there is no attacker",), f"{nature}; {FIXED}", judged).lines
    return [*lines, ("Images", coupling((called(one), bool(one["coupled"])) for one in record["networks"]))]


def called(one: Network) -> str:
    """Name a network at one alpha: "runs/bn, alpha 0.5"."""
    alpha = "" if one["alpha"] is None else f", alpha {one['alpha']:.3g}"
    return f"{one['network']}{alpha}{' (as given)' if one['own'] else ''}"


def _percent(one: Mapping[str, float] | None, interval: bool = False) -> str:
    if one is None:
        return "–"
    return f"[{100 * one['low']:.1f}, {100 * one['high']:.1f}]" if interval else f"{100 * one['value']:.1f}"


def _by_name(networks: Sequence[Network]) -> dict[str, list[Network]]:
    """The states of each network that have an alpha, in its order."""
    found: dict[str, list[Network]] = {}
    for one in networks:
        if one["alpha"] is not None:
            found.setdefault(one["network"], []).append(one)
    return {name: sorted(states, key=lambda one: float(one["alpha"])) for name, states in found.items()}


def _severities(networks: Sequence[Network], out: Path) -> Drawn:
    """A line per network and alpha: colour for the network, line style for alpha."""
    with style():
        figure = new(3.0)
        axes = figure.subplots()
        names = list(dict.fromkeys(one["network"] for one in networks))
        for one in networks:
            colour = SERIES[names.index(one["network"]) % len(SERIES)]
            number = [other for other in networks if other["network"] == one["network"]].index(one)
            points = {0: one["clean"]} | {int(severity): made for severity, made in one["severities"].items()}
            low, y, high = ([100 * made[part] for made in points.values()] for part in ("low", "value", "high"))
            axes.fill_between(list(points), low, high, color=colour, alpha=0.1, linewidth=0)
            line = _STYLES[number % len(_STYLES)]
            axes.plot(
                list(points), y, line, marker="o", markersize=4, color=colour, linewidth=1.4, label=short(called(one), 54)
            )
            for severity, made in points.items():
                text = f"severity {severity}" if severity else "clean"
                mark(axes, severity, 100 * made["value"], f"{called(one)}, {text}: {_percent(made)}% {_percent(made, True)}")
        axes.set_ylim(-1.5, 101.5)
        axes.set_xticks(range(6), ["clean", *map(str, range(1, 6))])
        axes.set_xlabel("severity")
        axes.set_ylabel("accuracy")
        in_percent(axes.yaxis)
        bare(axes, grid="y")
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=7.5, handlelength=3)
        return save("severity", figure, out)


def _alphas(curves: Mapping[str, Sequence[Network]], out: Path) -> Drawn:
    """Mean accuracy under corruption (filled) and on clean images (rings) over alpha, a colour per network."""
    with style():
        figure = new(2.8)
        axes = figure.subplots()
        for number, (name, states) in enumerate(curves.items()):
            colour, alphas = SERIES[number % len(SERIES)], [one["alpha"] for one in states]
            for key, line, face in (("mean", "-", colour), ("clean", "--", "none")):
                low, y, high = ([100 * one[key][part] for one in states] for part in ("low", "value", "high"))
                axes.fill_between(alphas, low, high, color=colour, alpha=0.1, linewidth=0)
                label = short(name) + ("" if key == "mean" else ", clean")
                options: dict[str, Any] = {"marker": "o", "markersize": 4.5, "markerfacecolor": face, "linewidth": 1.4}
                axes.plot(alphas, y, line, color=colour, label=label, **options)
                for one, alpha in zip(states, alphas, strict=True):
                    text = f"{label}, alpha {alpha:.3g}: {_percent(one[key])}% {_percent(one[key], True)}"
                    mark(axes, alpha, 100 * one[key]["value"], text)
        axes.set_ylim(-1.5, 101.5)
        axes.set_xlim(-0.03, 1.03)
        axes.set_xlabel("alpha: the share of batch statistics")
        axes.set_ylabel("accuracy")
        in_percent(axes.yaxis)
        bare(axes, grid="y")
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=7.5, handlelength=3)
        return save("alpha", figure, out)


def _examples(folder: Path, kinds: Sequence[str]) -> dict[str, str]:
    """The example images that are there, as addresses that hold them."""
    found = {}
    for kind in kinds:
        if (file := folder / "examples" / f"{kind}.png").is_file():
            found[kind] = f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
    return found
