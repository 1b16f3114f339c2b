"""The adversarial images of a training step."""

from __future__ import annotations

from torch import Generator, nn

from ..folding import fold
from ..modes import running
from ..types import Attack, Images, Labels, Mode, Proposal, ThreatModel

FOLDS = 100_000  # pixels of a batch; folding takes some 10 ms, as long as an attack on fewer


def craft(
    attack: Attack, model: nn.Module, x: Images, y: Labels, threat: ThreatModel, mode: Mode, *, generator: Generator
) -> Proposal:
    """Attack a batch, the model in `mode`; it is left as it was.

    On a CPU, in evaluation, what is attacked is a folded copy: the same function up to rounding, in three quarters of the time.
    """
    with running(model, mode):
        folds = mode == "eval" and x.device.type == "cpu" and x.numel() >= FOLDS
        attacked = fold(model).requires_grad_(False) if folds else model
        return attack(attacked, x, y, threat, generator=generator)
