"""How well a narrow 3D network, and a control that cannot see the order of frames, learn moving digits.

    python benchmarks/clips.py benchmarks/results/clips.json

Ten epochs each, two CPU threads, seed 0; clean accuracy on the 500 test clips, and what PGD-20 leaves at 0.2 in linf.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from normwise.attacks import PGD
from normwise.evaluation.evaluator import evaluate
from normwise.experiments.presets import moving_digits
from normwise.models import FrameResNet
from normwise.norms import BN
from normwise.records import provenance, to_json, write
from normwise.seeding import derive, drawing
from normwise.training.loop import fit


def main(out: Path) -> None:
    torch.set_num_threads(2)
    preset, found = moving_digits(), {}
    for choice in (preset.model, FrameResNet()):
        data = preset.data
        with drawing(derive(0, "weights")):
            model = choice(BN(), classes=data.classes, mean=data.mean, std=data.std)
        begun = time.perf_counter()
        fitted = fit(model, data, preset.recipe, preset.training_threat, preset.schedule, seed=0)
        seconds = time.perf_counter() - begun
        e = evaluate(fitted.model, data.test(batch_size=100), preset.threat, PGD()).evaluation
        figures = {"clean": asdict(e.clean_accuracy), "pgd-20": asdict(e.robust_accuracy)}
        found[choice.name] = {
            "model": repr(choice),
            "training_seconds": seconds,
            "epochs": fitted.training.epochs,
            **figures,
        }
        print(choice.name, f"{seconds:.0f} s", e.clean_accuracy, e.robust_accuracy)
    write(out, to_json({**provenance(), "seed": 0, "networks": found}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
