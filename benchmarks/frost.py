"""How hard is the stand-in for frost beside the authors' photographs? On the published ResNet-20, 500 test rows of CIFAR-10.

    python benchmarks/frost.py PHOTOGRAPHS RESNET20.th     (needs CIFAR-10, see NORMWISE_DATA)

PHOTOGRAPHS is the folder `ImageNet-C/create_c` of hendrycks/robustness, which holds frost1.png to frost5.jpg.
"""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from networks import resnet20
from normwise.data import CORRUPTIONS, Cifar10
from normwise.data.corruptions import corrupted
from normwise.registry import plain
from normwise.utils.intervals import of_rows

FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")


def photographed(folder: Path):
    """Frost as published: a crop of 32 pixels from one of five photographs at a fifth of its size."""
    photographs = [np.asarray(Image.open(folder / file).convert("RGB"))[2::5, 2::5] / 255 for file in FILES]

    def change(x, setting, scale, rng):
        ice = photographs[rng.integers(len(photographs))]
        top, left = rng.integers(0, ice.shape[0] - 32), rng.integers(0, ice.shape[1] - 32)
        return setting[0] * x + setting[1] * ice[top : top + 32, left : left + 32]

    return dataclasses.replace(CORRUPTIONS["frost"], change=change)


def main(folder: str, weights: str) -> None:
    """Print accuracies by severity as JSON."""
    model, batch = resnet20(Path(weights)), Cifar10().test(batch_size=500)[0]
    kinds = {"clean": None, "stand-in": CORRUPTIONS["frost"], "photographs": photographed(Path(folder))}
    found = {}
    for name, kind in kinds.items():
        for severity in range(1, 6) if kind else (0,):
            shown = corrupted(batch, kind, severity) if kind else batch
            with torch.no_grad():
                right = int((model(shown.x).argmax(1) == batch.y).sum())
            found.setdefault(name, {})[severity] = plain(of_rows(right, len(batch.y)))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
