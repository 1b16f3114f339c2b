"""The figure of docs/laboratory/method.md: what the networks of each claim keep before attackers of growing strength.

python benchmarks/origins.py results/reproduce/s benchmarks/results/origins.png
"""

import argparse
import textwrap
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from normwise.experiments.papers.cell_store import CellStore
from normwise.experiments.papers.claims_large import claims_of
from normwise.experiments.papers.origins import origins
from normwise.experiments.papers.papers import CELLS
from normwise.experiments.papers.scale import SCALES
from normwise.types import silent

COLUMNS = 2


def drawn(found, file):
    """One panel for each claim: a line per attacker, a mark per network."""
    rows = -(-len(found) // COLUMNS)
    figure = Figure(figsize=(10, 3.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    for axes, one in zip(panels, found, strict=False):
        names = [textwrap.fill(each.attacker, 32) for each in one.standings]
        for key, mark in (("own", "o"), ("other", "D")):
            known = [(share, row) for row, each in enumerate(one.standings) if (share := getattr(each, key)) is not None]
            if known:
                axes.plot([100 * share for share, _ in known], [row for _, row in known], mark, label=getattr(one, key))
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.set(xlim=(0, 100), xlabel="accuracy in percent")
        axes.set_title(f"claim {one.number}, at {one.where.split(';')[0]}", fontsize=8)
        axes.invert_yaxis()
        axes.grid(axis="y", linewidth=0.3)
        axes.legend(fontsize=7, loc="lower right")
    for axes in panels[len(found) :]:
        axes.axis("off")
    figure.savefig(file, dpi=100)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("records", "figure"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    preset = given.records.name
    seeds = CellStore(CELLS, SCALES[preset](), given.records, silent).records()
    drawn(list(origins(claims_of(preset), seeds)), given.figure)


if __name__ == "__main__":
    main()
