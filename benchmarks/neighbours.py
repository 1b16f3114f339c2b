"""Untouched rows beside malicious ones, and one attacked row among clean ones, with batch and with running statistics.

python benchmarks/neighbours.py OUT.json        (CIFAR-10 where $NORMWISE_DATA says; networks of results/reproduce/cpu)
"""

import sys
from pathlib import Path

from normwise.attacks import PGD
from normwise.reach import peers, single
from normwise.record import provenance, to_json, write
from normwise.reproduce.cell import Workshop
from normwise.reproduce.papers import CELLS
from normwise.reproduce.scale import cpu
from normwise.threats import Linf

ROOT = Path(__file__).parents[1] / "results" / "reproduce" / "cpu"


def main(out: str) -> None:
    scale, found = cpu(), []
    shop = Workshop(CELLS, scale, ROOT, lambda text, done, total: None)
    for name in ("bnwot", "bn-standard"):
        model = shop.network(name, 0)
        for share in (0.1, 0.5):
            reached = peers(model, scale.data.test(batch_size=100)[:2], PGD(steps=50), share=share)
            found.append({"network": name, "malicious": share, **reached._asdict()})
        for eps in (0.5, 1, 2):
            reached = single(model, scale.data.test(batch_size=32), Linf(eps=eps / 255), PGD(steps=20), victims=64)
            found.append({"network": name, "one row at eps": eps / 255, **reached._asdict()})
    for one in found:
        print(one)
    write(Path(out), to_json({**provenance(), "seed": 0, "figures": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
