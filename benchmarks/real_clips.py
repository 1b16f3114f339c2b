"""Real clips before several attackers: no defence, ABNN whose substitute saw other clips, fine-tuning, MultiBN, and adversarial training.

    python benchmarks/real_clips.py DATA.json OTHER.json FOLDER OUT.json --name fights [--seeds 3] [--published resnet20.th] [--only ROW ...]

DATA.json holds settings of `--data video` for one set of clips; OTHER.json those of another set, of clips as large, on which the substitute is
trained. The rows are among those of `normwise bench --domain video`; its run is FOLDER, and goes on where it stopped. With --published the
one row is ABNN with a published ResNet-20 for CIFAR-10, inflated, as substitute. --only names the rows to make. OUT.json holds aggregates
alone: no clip, name or weight.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from networks import resnet20
from normwise.experiments.presets import BASELINES
from normwise.models import ResNet3D, inflate
from normwise.norms import BN
from normwise.records import provenance, to_json, write

SCHEDULE = {"epochs": 20, "batch_size": 32, "optimizer": "adamw", "lr": 3e-3, "weight_decay": 5e-4, "decay": "onecycle"}
SCHEDULE |= {"crop": 4, "flip": True, "precision": "bf16", "validate_every": 20}
STEPS = {"steps": 3}  # of training against an attack
KINDS = ["linf", "roa"]  # of training against several
COLUMNS = {"kinds": BASELINES["columns"]["kinds"], "search": 10, "repeats": 1, "queries": 100, "alone": False}
PLACES = ["layer1:in", "layer1", "layer2", "layer3"]


def published() -> torch.nn.Module:
    """ResNet-20 for clips: the shapes and the pixels of the published network for images."""
    about = {"classes": 10, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    return ResNet3D(depth=20, width=16, shortcut="pad")(BN(), **about)


def settings(
    data: dict[str, Any], other: dict[str, Any], weights: Path | None, seeds: int, only: list[str]
) -> dict[str, Any]:
    """The bench, as its command line reads it."""
    several = {"name": "multi", "kinds": KINDS, **STEPS}
    rows: list[dict[str, Any]] = [
        {"name": "bn-standard"},
        {"name": "bn-adversarial", "recipe": {"name": "adversarial", **STEPS}},
        {"name": "bn-multi", "recipe": several},
        {"name": "bn-multi-worst", "recipe": {**several, "over": "max"}},
        {"name": "multibn", "norm": {"name": "multibn", "kinds": KINDS}, "recipe": {"name": "multibn", **STEPS}},
        {"name": "abnn", "substitute": "other", "recipe": "abnn"},
        {"name": "extra-bn", "adaptive": {"source": "plain"}, "recipe": "abnn"},
        {"name": "fine-tuned", "start": "other"},
    ]
    if weights:
        substitute = {"substitute": "real_clips:published", "substitute_weights": str(weights)}
        taps = {"adaptive": {"taps": PLACES, "substitute_taps": PLACES}}
        rows = [{"name": "abnn-published", **substitute, **taps, "recipe": "abnn"}]
    return {
        "domain": "video",
        "data": {"name": "video", **data},
        "model": {"name": "resnet3d", "depth": 10, "width": 8},
        "norms": [],
        "recipes": [],
        "methods": [row for row in rows if not only or row["name"] in only],
        "pretrained": [{"name": "other", "data": {"name": "video", **other}}],
        "threat": {"name": "linf", "eps": 4 / 255},
        "schedule": SCHEDULE,
        "attacks": [{"name": "pgd", "steps": 5}],
        "strongest": [{"name": "apgd", "steps": 20}, {"name": "apgd", "steps": 20, "targets": 1}],
        "columns": COLUMNS,
        "seeds": seeds,
        "batch_size": 10,
        "jobs": 1,
        "threads": 1,
        "device": "cpu",
    }


def score(one: dict[str, Any] | None) -> list[float] | None:
    """Value and interval."""
    return one and [one[key] for key in ("value", "low", "high")]


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """What the record keeps of a row of the bench, which names the commit that made it."""
    own, several, training = (result[key] for key in ("evaluation", "several", "training"))
    columns = {"linf": own, **several["evaluations"]}
    return {
        "commit": own["provenance"]["commit"],
        "clean": score(own["clean_accuracy"]),
        "n": own["n"],
        "coupled": own["coupled"],
        "protocol": {kind: score(one["protocol_accuracy"]) for kind, one in columns.items()},
        "strongest": {kind: score(one["robust_accuracy"]) for kind, one in columns.items()},
        "one image among clean ones": score(own["single"]),
        **{key: score(several[key]) for key in ("protocol_mean", "protocol_union", "mean", "union")},
        "threats": {kind: one["threat"] for kind, one in columns.items()},
        "beyond gradients": {kind: one["beyond_gradients"] for kind, one in columns.items()},
        "training": {key: training[key] for key in ("loss", "seconds", "forwards", "backwards")},
    }


def main() -> None:
    """Run the bench, and write what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--published", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    weights, record = None, provenance()
    if chosen.published:
        weights = (chosen.folder / "published.pt").absolute()
        inflate(resnet20(chosen.published).state_dict(), (substitute := published()), "middle")
        torch.save(substitute.state_dict(), weights)
    data, other = (json.loads(file.read_text()) for file in (chosen.data, chosen.other))
    config, runs = chosen.folder / "bench.json", chosen.folder / "bench"
    config.write_text(json.dumps(settings(data, other, weights, chosen.seeds, chosen.only)))
    subprocess.run([sys.executable, "-m", "normwise", "bench", "--config", str(config), "--out", str(runs)], check=True)
    rows = {file.parent.name: summary(json.loads(file.read_text())) for file in sorted(runs.glob("cells/*/result.json"))}
    record |= {"data": chosen.name, "schedule": SCHEDULE, "columns": COLUMNS, "eps": 4 / 255, "rows": rows}
    write(chosen.out, to_json(record))


if __name__ == "__main__":
    main()
