"""Networks trained by others, for benchmarks: each takes a weights file and reads pixels in [0, 1]."""

from pathlib import Path

import torch
from torch import nn

from normwise.auditing.broken_defenses import Noise
from normwise.models import ResNet, ResNet18, Standardize
from normwise.models.checkpoints import load_into, weights
from normwise.norms import BN
from normwise.types import silent


def small(channels: int, features: int) -> nn.Module:
    """Two strided convolutions and two linear layers: the small network of several verification papers."""
    convolutions = [nn.Conv2d(channels, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*convolutions, nn.Linear(features, 100), nn.ReLU(), nn.Linear(100, 10))


def _in_order(model: nn.Module, path: Path) -> nn.Module:
    """Give weights by order, whatever their names."""
    found = weights(path)
    load_into(model, found._replace(state=dict(zip(model.state_dict(), found.state.values(), strict=True))))
    return model


def cnn_a(path: Path) -> nn.Module:
    """Adversarially trained on CIFAR-10 at 2/255."""
    net = _in_order(small(3, 2048), path)
    return nn.Sequential(Standardize((0.4914, 0.4824, 0.4467), (0.2471, 0.2435, 0.2616)), net).eval()


def cnn_a_noisy(path: Path) -> nn.Module:
    """The same behind Gaussian noise of deviation 0.03, drawn anew in every pass."""
    return nn.Sequential(Noise(0.03), cnn_a(path)).eval()


def mnist(path: Path) -> nn.Module:
    """Adversarially trained on MNIST at 0.3."""
    return _in_order(small(1, 1568), path).eval()


def resnet20(path: Path) -> nn.Module:
    """Trained on CIFAR-10 without a defence; option A shortcuts."""
    net = ResNet(depth=20, shortcut="pad")(BN(), classes=10, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    load_into(net, weights(path))
    return net.eval()


def resnet18() -> nn.Module:
    """ResNet-18 for 32-pixel images with weights as they are drawn: for speed alone."""
    torch.manual_seed(0)
    net = ResNet18()(BN(), classes=10, mean=(0.4914, 0.4824, 0.4467), std=(0.2471, 0.2435, 0.2616))
    for norm in (m for m in net.modules() if hasattr(m, "running_mean")):
        nn.init.constant_(norm.weight, 1.0)
    return net.eval()


def _reproduced(name: str) -> nn.Module:
    """A network of `normwise reproduce --preset cpu`, seed 0, as results/ holds it; run from the repository's root."""
    from normwise.experiments.papers.cell_store import OldCellStore
    from normwise.experiments.papers.papers import CELLS
    from normwise.experiments.papers.scale import cpu

    return OldCellStore(CELLS, cpu(), Path("results/reproduce/cpu"), silent).network(name, 0)


def resnet8_bn() -> nn.Module:
    """ResNet-8 with BatchNorm, trained on 10,000 images of CIFAR-10."""
    return _reproduced("bn-standard")


def resnet8_rnt() -> nn.Module:
    """The same with RobustNorm, tracked."""
    return _reproduced("rnt-standard")
