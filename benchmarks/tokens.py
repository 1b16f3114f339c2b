"""What the norms of transformers cost: a whole ViT training step, and the layers alone, beside LayerNorm.

    python benchmarks/tokens.py OUT.json [--rows 64] [--repeats 21] [--width 192] [--depth 6]

Random images of 32 x 32 pixels, patches of 4, one thread, the norms in turns, so that a busy minute strikes all. A ratio is the median
over turns of a norm's time by LayerNorm's in the same turn. Milliseconds are of the processor's time.
"""

import argparse
import time
from pathlib import Path
from statistics import median

import torch
from torch.nn.functional import cross_entropy

from normwise.models import ViT
from normwise.norms import NORMS
from normwise.records import provenance, to_json, write
from normwise.types import Site

ABOUT = {"classes": 10, "mean": (0.5,) * 3, "std": (0.25,) * 3}
NAMES = ("layernorm2d", "rmsnorm", "dyt", "derf")  # the first is what the others are compared with
PASSES = 20  # of a layer, in one turn


def clock(work):
    before = time.process_time()
    work()
    return 1000 * (time.process_time() - before)


def step(model, x, y):
    """Forward, backward and the optimizer's step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def work():
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()

    return work


def layer_alone(layer, x, way):
    """Forward and backward of one layer on tokens, with gradients in them and in its parameters."""

    def work():
        for _ in range(PASSES):
            torch.autograd.grad(layer(x), [x, *layer.parameters()], way)

    return work


def compared(works, repeats):
    """Milliseconds of each, and its ratio to the first: medians with [smallest, largest]."""
    spent = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            took = clock(work)
            spent[name] += [took] * (turn > 0)  # the first warms up
    first = spent[NAMES[0]]
    found = {}
    for name, times in spent.items():
        ratios = [mine / theirs for mine, theirs in zip(times, first, strict=True)]
        found[name] = {
            "milliseconds": [median(times), min(times), max(times)],
            "ratio": [median(ratios), min(ratios), max(ratios)],
        }
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--depth", type=int, default=6)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = ViT(width=given.width, depth=given.depth, heads=3)
    x, y = torch.rand(given.rows, 3, 32, 32), torch.arange(given.rows) % 10
    tokens = torch.randn(given.rows, 65, given.width, requires_grad=True)
    steps = {name: step(network(NORMS.make(name), **ABOUT), x, y) for name in NAMES}
    layers = {
        name: layer_alone(NORMS.make(name)(Site(given.width, axis=-1)), tokens, torch.randn_like(tokens)) for name in NAMES
    }
    found = {"training_step": compared(steps, given.repeats), "layer_alone": compared(layers, given.repeats)}
    for what, each in found.items():
        print(what, {name: f"{one['milliseconds'][0]:.1f} ms, {one['ratio'][0]:.2f}" for name, one in each.items()})
    sizes = {"rows": given.rows, "repeats": given.repeats, "width": given.width, "depth": given.depth, "passes": PASSES}
    write(given.out, to_json({**provenance(), "seed": 0, **sizes, **found}))


if __name__ == "__main__":
    main()
