"""The record and the figure of docs/laboratory/norms-today.md, made of what `norms_today.py` found.

    python benchmarks/norms_page.py benchmarks/results/norms-today.json benchmarks/results/norms-today.png ARMS.json ...

The record keeps of every arm its search, its figures by seed and its audit; of arms of several runs the last counts.
`readme.py norms` writes the table into the page.
"""

import argparse
import json
from pathlib import Path

from normwise.records import to_json, write

KEPT = ("value", "low", "high")
NAMES = {
    "layernorm2d": "LayerNorm",
    "rmsnorm": "RMSNorm",
    "dyt": "Dynamic Tanh",
    "derf": "Derf",
    "grn": "GRN",
    "bn": "BatchNorm",
}
NETWORKS = {"vit": "ViT", "convnext": "ConvNeXt"}
RECIPES = {"standard": "clean images", "nfgsm": "N-FGSM"}


def scores(evaluation):
    """Accuracies with their intervals."""
    keys = ("clean_accuracy", "protocol_accuracy", "robust_accuracy")
    return {key: evaluation[key] and [evaluation[key][part] for part in KEPT] for key in keys}


def seed(result):
    """What the record keeps of a trained network."""
    own, training = result["evaluation"], result["training"]
    loud = {one["name"]: one["measured"] for one in own["checks"] if one["status"] in ("fail", "warn")}
    cost = {key: training[key] for key in ("loss", "seconds", "forwards", "backwards", "overfitted_epoch")}
    return {
        "commit": own["provenance"]["commit"],
        **scores(own),
        "n": own["n"],
        "threat": own["threat"],
        "checks": loud,
        **cost,
    }


def record(runs):
    """All arms, without what belongs to one image; each seed names the commit that it was made with."""
    found, arms = {}, {name: arm for one in runs for name, arm in one["arms"].items()}
    for name, arm in arms.items():
        found[name] = {
            "search": arm["search"],
            "converged": arm["converged"],
            "audit": arm.get("audit"),
            "seeds": [seed(one) for one in arm["results"]],
            "near": [{**scores(one), "n": one["n"], "threat": one["threat"]} for one in arm.get("near", [])],
            "curves": arm.get("curves", []),
        }
    return {**{key: value for key, value in runs[0].items() if key != "arms"}, "arms": found}


def parts(name):
    """Network, norm and recipe, as the page calls them."""
    kind, norm, recipe = name.split("-", 2)
    return NETWORKS[kind], NAMES[norm], RECIPES[recipe]


def each(seeds, key):
    """A figure by seed, in percent."""
    return " / ".join(f"{100 * one[key][0]:.1f}" for one in seeds)


def row(name, arm):
    """A line of the table."""
    kind, norm, recipe = parts(name)
    first, audit = arm["seeds"][0], arm["audit"]
    cell = f"{audit['verdict']}: {100 * audit['upper_bound']:.1f} of {100 * audit['claimed_accuracy']:.1f}" if audit else "-"
    losses = " / ".join(f"{one['loss']:.3g}" for one in arm["seeds"])
    learned = "" if arm["converged"] else " (not converged)"
    rate = f"{arm['search']['rate']:g}{' (edge)' if arm['search']['edge'] else ''}"
    accuracies = " | ".join(each(arm["seeds"], key) for key in ("clean_accuracy", "protocol_accuracy", "robust_accuracy"))
    accuracies += f" | {each(arm['near'], 'robust_accuracy')}" if arm.get("near") else ""
    return f"| {kind} | {norm} | {recipe}{learned} | {rate} | {accuracies} | {cell} | {losses} | {first['backwards']:,} | {first['seconds']:.0f} |"


def table(found):
    """All arms."""
    near = ["at an eighth of the radius"] * any(arm.get("near") for arm in found["arms"].values())
    heads = "network", "norm", "trained on", "rate", "clean", "protocol", "strongest attack", *near
    heads = *heads, "audit, seed 0", "loss", "backwards", "seconds"
    lines = (row(name, arm) for name, arm in found["arms"].items())
    return "\n".join([f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads), *lines])


def drawn(found, file):
    """Clean accuracy against robust accuracy: a mark for every seed of every arm."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (kind, title) in zip(figure.subplots(1, 2, sharex=True, sharey=True), NETWORKS.items(), strict=True):
        norms = dict.fromkeys(name.split("-")[1] for name in found["arms"] if name.startswith(kind + "-"))
        for colour, norm in enumerate(norms):
            for recipe, mark in (("standard", "o"), ("nfgsm", "^")):
                arm = found["arms"].get(f"{kind}-{norm}-{recipe}", {"seeds": []})
                x, y = ([100 * one[key][0] for one in arm["seeds"]] for key in ("clean_accuracy", "robust_accuracy"))
                axes.plot(x, y, mark, color=f"C{colour}", label=f"{NAMES[norm]}, {RECIPES[recipe]}")
        axes.set(title=title, xlabel="clean accuracy, percent")
        axes.legend(fontsize=7)
    figure.axes[0].set_ylabel("accuracy under the strongest attack, percent")
    figure.savefig(file, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("record", "figure"):
        parser.add_argument(name, type=Path)
    parser.add_argument("arms", type=Path, nargs="+")
    given = parser.parse_args()
    found = record([json.loads(file.read_text()) for file in given.arms])
    write(given.record, to_json(found))
    drawn(found, given.figure)


if __name__ == "__main__":
    main()
