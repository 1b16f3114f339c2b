"""Is there something to learn in a set of videos? Balanced accuracy of a narrow 3D ResNet-10 over 5 folds of whole groups.

    python benchmarks/folds.py FOLDER benchmarks/results/folds-fights-32.json --name fights --groups FOLDER/groups.json

Each fold is tested by a network that saw none of its groups; the schedule is fixed beforehand, and the last epoch counts. Balanced
accuracy is the mean of the classes' shares that are right, over the test rows of all folds; the interval is a bootstrap over groups. The
record holds aggregates alone.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from normwise.data import VideoFolder
from normwise.models import ResNet3D
from normwise.norms import BN
from normwise.records import provenance, to_json, write
from normwise.registry import plain
from normwise.seeding import derive, drawing
from normwise.threats import Linf
from normwise.training.loop import fit
from normwise.training.recipes import Standard
from normwise.training.schedule import Schedule
from normwise.utils.intervals import middle, resamples

DRAWS = 10_000


def balanced(groups: list[str], y: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """Balanced accuracy of some rows, with its 95% interval over groups."""
    names, which = np.unique(groups, return_inverse=True)
    table = np.zeros((len(names), 2, int(y.max()) + 1))  # per group: rows, and right rows, of each class
    np.add.at(table, (which, 0, y), 1)
    np.add.at(table, (which, 1, y), right)
    drawn = np.concatenate([np.tensordot(counts, table, 1) for counts in resamples(len(names), DRAWS)])
    with np.errstate(invalid="ignore"):
        low, high = middle((drawn[:, 1] / drawn[:, 0]).mean(1))
    rows, hits = table.sum(0)
    return {"value": float((hits / rows).mean()), "low": low, "high": high, "groups": len(names), "rows": len(y)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--groups", default="")
    parser.add_argument("--options", type=json.loads, default={}, help="further options of the data, as JSON")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    data = VideoFolder(root=chosen.folder, groups=chosen.groups, **chosen.options)
    schedule = Schedule(
        epochs=chosen.epochs,
        batch_size=32,
        optimizer="adamw",
        lr=3e-3,
        weight_decay=5e-4,
        decay="onecycle",
        crop=4,
        flip=True,
    )
    groups, found, begun, network = (
        data._sides[1],
        list[tuple[str, int, float]](),
        time.perf_counter(),
        ResNet3D(depth=10, width=8),
    )
    for fold in range(data.folds):
        part = replace(data, fold=fold)
        test = [(batch.x, batch.y, batch.ids) for batch in part.test(batch_size=50)]
        answers = []
        for seed in range(chosen.seeds):
            with drawing(derive(seed, "weights")):
                model = network(BN(), classes=part.classes, mean=part.mean, std=part.std)
            model = fit(model, part, Standard(), Linf(eps=8 / 255), schedule, seed=seed).model
            with torch.no_grad():
                answers.append(torch.cat([model(x).argmax(1) == y for x, y, _ in test]).double())
        right = torch.stack(answers).mean(0).tolist()
        y, ids = (torch.cat(column).tolist() for column in list(zip(*test, strict=True))[1:])
        found += [(str(groups[row]), label, share) for row, label, share in zip(ids, y, right, strict=True)]
        print(f"fold {fold}: {len(y)} rows, accuracy {np.mean(right):.3f}, {time.perf_counter() - begun:.0f} s", flush=True)
    accuracy = balanced(
        [group for group, _, _ in found], *(np.array(column) for column in list(zip(*found, strict=True))[1:])
    )
    record = {**provenance(), "data": chosen.name, "shape": data.shape, "folds": data.folds, "seeds": chosen.seeds}
    record |= {"model": plain(network), "schedule": plain(schedule), "balanced_accuracy": accuracy}
    record["verdict"] = "premise met" if accuracy["low"] > 0.5 else "premise not met"
    write(chosen.out, to_json(record | {"seconds": time.perf_counter() - begun}))
    print(accuracy, record["verdict"])


if __name__ == "__main__":
    main()
