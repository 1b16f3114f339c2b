"""Does confidence hide the gradient? PGD-20 and APGD-CE on a network whose logits are multiplied, with two forms of the
cross-entropy: torch's, and normwise's (losses.py).

    python benchmarks/confidence.py WEIGHTS OUT.json

WEIGHTS are those of networks.cnn_a; CIFAR-10's files are where $NORMWISE_DATA says.
"""

import sys
from pathlib import Path

import torch
from torch import nn

import networks
from normwise import losses
from normwise.attacks import APGD, PGD
from normwise.data import find
from normwise.evaluation.evaluator import evaluate
from normwise.records import provenance, to_json, write
from normwise.threats import Linf

FORMS = {
    "torch": lambda logits, y: nn.functional.cross_entropy(logits, y, reduction="none"),
    "normwise": losses.cross_entropy,
}


class Scaled(nn.Module):
    def __init__(self, model, factor):
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x):
        return self.factor * self.model(x)


def main(weights, out, rows=200, eps=2 / 255):
    model, batch = networks.cnn_a(Path(weights)), find("cifar10").test(batch_size=rows)[0]
    found = []
    for factor in (1, 10, 100, 1000):
        for form, loss in FORMS.items():
            losses.LOSSES["ce"] = loss
            for attack in (PGD(), APGD()):
                e = evaluate(Scaled(model, factor), [batch], Linf(eps=eps), (attack,)).evaluation
                found.append({"factor": factor, "form": form, "attack": attack.label, "robust": e.robust_accuracy.value})
                print(found[-1] | {"clean": e.clean_accuracy.value}, flush=True)
    settings = {"rows": rows, "eps": eps, "seed": 0, "clean": e.clean_accuracy.value, "threads": torch.get_num_threads()}
    write(Path(out), to_json({**provenance(), **settings, "runs": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
