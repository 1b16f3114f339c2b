"""What a norm costs: a training step, and the gradient in pixels an attack takes, of one network with each norm.

    python benchmarks/norms.py OUT.json [--rows 128] [--repeats 15]

ResNet-8 on random images of 32 x 32 pixels, one thread, the norms in turns, so that a busy minute strikes all. Milliseconds are
of the processor's time, medians with [smallest, largest]. `abnn` listens to the BatchNorm network, `nfresnet` is the network
made for no norms.
"""

import argparse
import time
from pathlib import Path
from statistics import median

import torch
from torch.nn.functional import cross_entropy

from normwise.attacks.oracle import Oracle
from normwise.evaluation.acceleration import FAST, faster
from normwise.losses import cross_entropy as per_row
from normwise.models import NFResNet, ResNet
from normwise.models.abnn import abnn
from normwise.norms import NORMS
from normwise.records import provenance, to_json, write
from normwise.utils.model_state import running

ABOUT = {"classes": 10, "mean": (0.5,) * 3, "std": (0.25,) * 3}


def networks():
    """Each norm in one architecture, an ABNN of two, and a network made for none."""
    made = {name: ResNet(depth=8)(NORMS.make(name), **ABOUT) for name in NORMS}
    return made | {"abnn": abnn(made["bn"], made["bn"], shape=(3, 32, 32)), "nfresnet": NFResNet(depth=8)(None, **ABOUT)}


def costs(model, x, y):
    """Milliseconds of the processor: training step, gradient as it is, gradient on the copy that is searched."""
    model.train().zero_grad()
    yield lambda: cross_entropy(model(x), y).backward()
    everyone = torch.ones(len(x), dtype=torch.bool)
    with running(model, "eval"):
        searched = (faster(model, FAST, x, 0).made or [model])[0]
    for attacked in (model.eval(), searched):
        yield lambda attacked=attacked: Oracle(attacked).gradient(x, y, per_row, everyone)


def clock(work):
    before = time.process_time()
    work()
    return 1000 * (time.process_time() - before)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, y = torch.rand(given.rows, 3, 32, 32).to(memory_format=torch.channels_last), torch.arange(given.rows) % 10
    models = {name: model.to(memory_format=torch.channels_last) for name, model in networks().items()}
    spent = {name: ([], [], []) for name in models}
    for turn in range(given.repeats + 1):
        for name, model in models.items():
            for times, work in zip(spent[name], costs(model, x, y), strict=True):
                took = clock(work)
                times += [took] * (turn > 0)  # the first warms up
    keys = "training_step", "gradient", "gradient_searched"
    found = {
        name: {key: [median(times), min(times), max(times)] for key, times in zip(keys, each, strict=True)}
        for name, each in spent.items()
    }
    for name, figures in found.items():
        print(name, {key: f"{value[0]:.0f} ms, {value[0] / found['bn'][key][0]:.2f}" for key, value in figures.items()})
    write(given.out, to_json({**provenance(), "seed": 0, "rows": given.rows, "repeats": given.repeats, "norms": found}))


if __name__ == "__main__":
    main()
