"""Untouched rows beside malicious ones, and one attacked row among clean ones, with batch and with running statistics.

python benchmarks/neighbours.py OUT.json        (CIFAR-10 where $NORMWISE_DATA says; networks of results/reproduce/cpu)
"""

import sys
from pathlib import Path

from normwise.attacks import PGD
from normwise.evaluation.batch_attacks import peers, single
from normwise.evaluation.plan import AttackPlan
from normwise.experiments.papers.cell_store import OldCellStore
from normwise.experiments.papers.papers import CELLS
from normwise.experiments.papers.scale import cpu
from normwise.records import provenance, to_json, write
from normwise.threats import Linf
from normwise.types import silent

ROOT = Path(__file__).parents[1] / "results" / "reproduce" / "cpu"


def main(out: str) -> None:
    scale, found = cpu(), []
    store = OldCellStore(CELLS, scale, ROOT, silent)
    for name in ("bnwot", "bn-standard"):
        model = store.network(name, 0)
        for share in (0.1, 0.5):
            reached = peers(model, scale.data.test(batch_size=100)[:2], PGD(steps=50), share=share)
            found.append({"network": name, "malicious": share, **reached._asdict()})
        for eps in (0.5, 1, 2):
            reached = single(
                model, scale.data.test(batch_size=32), AttackPlan(Linf(eps=eps / 255), (PGD(steps=20),)), victims=64
            )
            found.append({"network": name, "one row at eps": eps / 255, **reached._asdict()})
    for one in found:
        print(one)
    write(Path(out), to_json({**provenance(), "seed": 0, "figures": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
