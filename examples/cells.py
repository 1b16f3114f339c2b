"""Two trained cells of results/reproduce/cpu as networks, for any verb. From this folder:

NORMWISE_DATA=data normwise diagnose cells:bn cells:rnt --data cifar10 --threat linf --threat.eps 8/255 --rows 100
"""

from pathlib import Path

from torch import nn

from normwise import NORMS
from normwise.experiments.papers.scale import cpu
from normwise.models import checkpoints

CELLS = Path(__file__).parents[1] / "results/reproduce/cpu/cells"


def bn() -> nn.Module:
    """ResNet-8 with BatchNorm, standard training, seed 0."""
    return _cell("bn")


def rnt() -> nn.Module:
    """The same with RobustNorm, tracked."""
    return _cell("rnt")


def _cell(norm: str) -> nn.Module:
    scale, path = cpu(), CELLS / f"{norm}-standard-seed0" / "model.safetensors"
    model = scale.model(NORMS.make(norm), classes=10, mean=scale.data.mean, std=scale.data.std)
    checkpoints.load_into(model, checkpoints.weights(path))
    return model.eval()
