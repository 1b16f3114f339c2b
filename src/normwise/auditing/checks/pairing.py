"""Company for lone rows: rows that fall leave their batch, and some networks cannot answer the one that is left."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...seeding import generator
from ...types import Batch, Images
from ...utils.forward import logits_of
from ...utils.model_state import device_of, running, untouched


def for_any_size(model: nn.Module, batch: Batch) -> nn.Module:
    """The model, or where it answers two rows and not one, one that asks it about two: rows that fall leave their batch."""
    x = batch.x[:2].to(device_of(model))

    def answers(rows: Images) -> bool:
        try:
            with torch.no_grad(), running(model, "eval"), untouched(model, generator(0, "any size")):
                return len(logits_of(model, rows)) == len(rows)
        except Exception:
            return False

    return model if len(x) < 2 or answers(x[:1]) or not answers(x) else PadToTwo(model)


class PadToTwo(nn.Module):
    """Asks about a lone row twice over, of a network that cannot answer one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Images) -> Tensor:
        return logits_of(self.network, x if len(x) > 1 else x.repeat(2, *[1] * (x.ndim - 1)))[: len(x)]
