"""The adversarial images of a training step."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Generator, nn

from ...norms.surgery.folding import fold
from ...norms.surgery.unmapped import remark
from ...seeding import rows_in_all
from ...types import Attack, Images, Labels, Mode, Proposal, ThreatModel
from ...utils.fidelity import difference_from
from ...utils.model_state import running

_ALIKE: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # whether a network's folded copy was found to answer alike
FOLDS = 100_000  # values of a batch; folding takes some 10 ms, as long as an attack on fewer


def craft(
    attack: Attack, model: nn.Module, x: Images, y: Labels, threat: ThreatModel, mode: Mode, *, generator: Generator
) -> Proposal:
    """Attack a batch, the model in `mode`; it is left as it was.

    On a CPU, in evaluation, what is attacked is a folded copy: the same function up to rounding, in three quarters of the
    time. The first copy of a network is compared with it; where they differ, the network itself is attacked, and says so
    (`remarks`).
    """
    with running(model, mode):
        attacked = model
        values = x[0].numel() * rows_in_all(len(x))  # all processes decide alike
        if mode == "eval" and x.device.type == "cpu" and values >= FOLDS and _ALIKE.get(model, True):
            attacked = fold(model)
            attacked.requires_grad_(False)
            if model not in _ALIKE and not _alike(model, attacked, x):
                attacked = model
        return attack(attacked, x, y, threat, generator=generator)


def _alike(model: nn.Module, folded: nn.Module, x: Images) -> bool:
    with torch.autocast(x.device.type, enabled=False):  # bfloat16 rounds away more than folding does
        differs = difference_from(model, folded, x, seed=0)
    if differs:
        remark(model, f"attacked itself in training, not its folded copy: {differs}")
    _ALIKE[model] = not differs
    return not differs
