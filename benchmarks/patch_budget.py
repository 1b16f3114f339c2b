"""The patch verdict with a short budget and with the published one, of ABNN and of a network without a defence.

    python benchmarks/patch_budget.py FOLDER OUT.json [--seeds 1] [--rows 100] [--size 3]

FOLDER is one that `normwise reproduce --preset s` filled, weights included; $NORMWISE_DATA holds CIFAR-10. Claim 11 was read with the short
budget, which was set before. ABNN's images are coupled: whole batches of 100 are attacked. `beyond_gradients`: how many images searches
without gradients broke beyond those by gradient. A record that holds a seed already is gone on with.
"""

import argparse
import json
from pathlib import Path

import torch

from normwise import evaluate
from normwise.attacks import PatchAttack
from normwise.data import Cifar10
from normwise.evaluation.plan import AttackPlan
from normwise.experiments.papers.cell_store import CellStore
from normwise.experiments.papers.papers import CELLS
from normwise.experiments.papers.scale import s
from normwise.records import provenance, to_json, write
from normwise.threats import Patch
from normwise.types import silent

NETWORKS = "bn-standard", "abnn-foreign"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--size", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    store, batches = CellStore(CELLS, s(), given.folder, silent), Cifar10(test_limit=given.rows).test(batch_size=100)
    budgets = {"short": s().patches, "published": PatchAttack()}
    found = json.loads(given.out.read_text())["found"] if given.out.is_file() else {}
    for seed in given.seeds:
        for name in NETWORKS:
            for budget, attack in budgets.items():
                if (key := f"{name} seed {seed}, {budget}") in found:
                    continue
                e = evaluate(
                    store.network(name, seed), batches, AttackPlan(Patch(size=given.size), (attack,), seed=seed)
                ).evaluation
                found[key] = {
                    "attack": attack.label,
                    "clean": e.clean_accuracy,
                    "left": e.robust_accuracy,
                    "coupled": e.coupled,
                    "beyond_gradients": e.beyond_gradients,
                    "seconds": e.seconds,
                }
                print(key, e.clean_accuracy, e.robust_accuracy, e.beyond_gradients, f"{e.seconds:.0f} s", flush=True)
                write(given.out, to_json({**provenance(), "rows": given.rows, "size": given.size, "found": found}))


if __name__ == "__main__":
    main()
