"""Images a second of adversarial training, the share of what the processor could do, and the ratio to the loop of public code.

    python benchmarks/training.py OUT.json [--depth 8 20] [--batches 4] [--repeats 5]

PGD-7 on random images of 32 x 32 pixels, batches of 128, one thread, kinds in turns. Seconds are of the processor's time, so that a busy
machine matters less. `plain` is a loop as public code has it (float32, backward through the weights in every step of the attack, in training
mode, e.g. locuslab/robust_overfitting). The bound is the time of the same operations, counted by torch, at the speed of a large product of
matrices in the same precision; the work between the convolutions is not in it. Emulated bfloat16 is left out.
"""

import argparse
import time
from pathlib import Path
from statistics import median

import torch
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from normwise import Linf
from normwise.models import ResNet
from normwise.norms import NORMS
from normwise.records import provenance, to_json, write
from normwise.training.loop import fit
from normwise.training.recipes import Adversarial
from normwise.training.schedule import Schedule
from normwise.utils.processor import emulates_bfloat16

ROWS, STEPS, EPS = 128, 7, 8 / 255
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def network(depth):
    torch.manual_seed(0)
    return ResNet(depth=depth)(NORMS.make("bn"), classes=10, mean=(0.5,) * 3, std=(0.25,) * 3)


def seconds(work):
    before = time.process_time()
    work()
    return time.process_time() - before


def plain(model, x, y):
    """One step of PGD adversarial training, as most public loops have it."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()

    def work():
        for rows, labels in zip(x.split(ROWS), y.split(ROWS), strict=True):
            delta = torch.empty_like(rows).uniform_(-EPS, EPS).requires_grad_()
            for _ in range(STEPS):
                cross_entropy(model(rows + delta), labels).backward()
                delta.data = (delta + EPS / 4 * delta.grad.sign()).clamp(-EPS, EPS)
                delta.data = (rows + delta.data).clamp(0, 1) - rows
                delta.grad.zero_()
            optimizer.zero_grad()
            cross_entropy(model(rows + delta.detach()), labels).backward()
            optimizer.step()

    return work


def ours(model, x, y, precision):
    """The same by `fit`."""
    data = list(zip(x.split(ROWS), y.split(ROWS), strict=True))
    schedule = Schedule(epochs=1, batch_size=ROWS, optimizer="adamw", lr=1e-3, precision=precision, validate_every=0)
    return lambda: fit(model, data, Adversarial(steps=STEPS), Linf(eps=EPS), schedule, seed=0)


def operations(depth):
    """Operations of one step for one batch: gradients with respect to the images alone in the attack, to all in the update."""
    model, x, y = network(depth), torch.rand(ROWS, 3, 32, 32), torch.zeros(ROWS, dtype=torch.long)

    def counted(images, weights):
        model.requires_grad_(weights)
        with FlopCounterMode(display=False) as counter:
            cross_entropy(model(images), y).backward()
        return counter.get_total_flops()

    return STEPS * counted(x.clone().requires_grad_(), False) + counted(x, True)


def peak(precision):
    """Operations a second of a large product of matrices: the best of ten."""
    a, b = (torch.rand(1024, 1024).to(TYPES[precision]) for _ in range(2))
    return 2 * 1024**3 / min(seconds(lambda: a @ b) for _ in range(10))


def measured(depth, batches, repeats):
    x, y = torch.rand(batches * ROWS, 3, 32, 32), torch.randint(0, 10, (batches * ROWS,))
    works = {"plain fp32": plain(network(depth), x, y)}
    known = [precision for precision in TYPES if precision == "fp32" or not emulates_bfloat16(x.device)]
    works |= {f"fit {precision}": ours(network(depth), x, y, precision) for precision in known}
    spent = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            spent[name] += [seconds(work)] * (turn > 0)  # the first warms up
    needed, found = operations(depth) * batches, {}
    for name, times in spent.items():
        precision = name.split()[-1]
        found[name] = {
            "images_per_second": len(y) / median(times),
            "seconds": times,
            "share_of_bound": needed / peak(precision) / median(times),
            "faster_than_plain": median(a / b for a, b in zip(spent["plain fp32"], times, strict=True)),
        }
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--depth", type=int, nargs="+", default=[8, 20])
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    networks = {f"ResNet-{depth}": measured(depth, given.batches, given.repeats) for depth in given.depth}
    write(given.out, to_json({**provenance(), "networks": networks}))
    for name, kinds in networks.items():
        for kind, found in kinds.items():
            speed, share, ratio = (found[key] for key in ("images_per_second", "share_of_bound", "faster_than_plain"))
            print(f"{name}, {kind}: {speed:.0f} images a second, {100 * share:.0f}% of the bound, {ratio:.2f} times plain")


if __name__ == "__main__":
    main()
