"""What adversarial training in bfloat16 loses: `bn-at` of size S again in float32, the same seeds, images, batches and learning rate.

    NORMWISE_DATA=DIR python benchmarks/precision.py results/reproduce/s FOLDER benchmarks/results/precision.json [--seeds 1 2 3]

The records of size S were trained in bfloat16. Both are judged in float32. A stopped run goes on where it was.
docs/laboratory/method.md accepts bfloat16 if three seeds lose less than 1 point at 8/255.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import mean

import torch

from normwise.experiments.papers.cell_store import CellStore
from normwise.experiments.papers.papers import CELLS
from normwise.experiments.papers.scale import s
from normwise.records import provenance, to_json, write
from normwise.types import silent

CELL, MOST = "bn-at", 0.01


def figures(record):
    """Clean accuracy, and what stands at the largest radius under the strongest attack, as shares; seconds of training."""
    found = record["figures"]
    strongest = found["strongest"][max(found["strongest"], key=float)]
    return {
        "clean": found["clean"],
        "robust": strongest,
        "seconds": record["training"]["seconds"],
        "digest": record["digest"],
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("records", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    given = parser.parse_args()
    torch.set_num_threads(1)
    ours = CellStore(CELLS, s(), given.records, silent)
    pairs = {}
    for seed in given.seeds:
        if (made := ours.record(CELL, seed)) is None:
            raise SystemExit(f"{given.records} has no record of {CELL} with seed {seed}; make it first: normwise reproduce")
        schedule = replace(s().robust, precision="fp32", lr=made["training"]["lr"])
        store = CellStore(CELLS, replace(s(), robust=schedule, tuning=None), given.folder, silent)
        pairs[seed] = {"bf16": figures(made), "fp32": figures(store.make(CELL, seed))}
        print(seed, pairs[seed])
    lost = mean(pair["fp32"]["robust"] - pair["bf16"]["robust"] for pair in pairs.values())
    write(given.out, to_json({**provenance(), "seeds": pairs, "lost": lost, "accepted": lost < MOST}))
    print(
        f"bfloat16 loses {100 * lost:.2f} points at 8/255; accepted below {100 * MOST:.0f}: {'yes' if lost < MOST else 'no'}"
    )


if __name__ == "__main__":
    main()
