"""Small data sets and networks with known answers."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from normwise.data import TensorData
from normwise.data.array_checks import Arrays
from normwise.models import ResNet3D
from normwise.seeding import drawing, generator
from normwise.threats import Linf
from normwise.types import Attack, Batch, Norm, Site, ThreatModel
from normwise.utils.per_row import over


def some(names, *few):
    """Parameters of a test, of which `make test` takes these few, and `make test-all` every one."""
    assert set(few) <= set(names), f"{set(few) - set(names)} are none of {list(names)}"
    rest = {name: pytest.param(*(name if isinstance(name, tuple) else [name]), marks=pytest.mark.slow) for name in names}
    return [name if name in few else rest[name] for name in names]


def across(ones, others, one, *few):
    """The pairs that stand for all: those of `one` with every other, and those of every one with these few."""
    assert one in ones
    assert set(few) <= set(others)
    return [(a, b) for a in ones for b in others if a == one or b in few]


def crossed(ones, others, one, *few):
    """Pairs, of which `make test` takes those that stand for all, and `make test-all` every one."""
    return some([(a, b) for a in ones for b in others], *across(ones, others, one, *few))


class Linear(nn.Module):
    """Two classes, logits (0, w.x + b) for x of any shape: how far the margin can move in a ball is known on paper."""

    def __init__(self, shape: tuple[int, ...], seed: int = 0) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(shape, generator=generator(seed, "linear")))

    def forward(self, x: Tensor) -> Tensor:
        score = (x * self.w).flatten(1).sum(1)
        return torch.stack([torch.zeros_like(score), score], 1)


class Small(nn.Module):
    """Two convolutions with a norm between, for 6x6 images of 2 channels and 3 classes."""

    def __init__(self, norm: Norm | None = None, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv1 = nn.Conv2d(2, 8, 3, padding=1)
            self.norm: nn.Module = norm(Site(8)) if norm else nn.BatchNorm2d(8)
            self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
            self.drop = nn.Dropout(0.2)
            self.linear = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv1(x)).relu()
        return self.linear(self.drop(self.conv2(y).relu().mean((2, 3))))


class Activated(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: a norm with an activation inside."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.drop(super().forward(x)))
        return y


class Rectified(nn.BatchNorm2d):
    """A norm whose forward does more than its name says."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class Split(nn.BatchNorm2d):
    """As timm's SplitBatchNorm2d: a norm with another one inside, which reads half of the rows in training."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.aux_bn = nn.ModuleList([nn.BatchNorm2d(channels)])

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        first, second = x.split(len(x) // 2)
        return torch.cat([super().forward(first), self.aux_bn[0](second)])


class ChannelsFirst(nn.LayerNorm):
    """As ConvNeXt's LayerNorm2d: over the channels of each position of (b, c, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Neighbours(nn.Module):
    """Logits that subtract the batch's mean logit: rows are coupled, and nothing else is unusual."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        return logits - logits.mean(0)


class OverFrames(nn.Module):
    """Clips (b, c, t, h, w), read frame by frame: the mean of the inner network's logits."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x.transpose(1, 2).flatten(0, 1))
        return logits.unflatten(0, x.shape[:1] + x.shape[2:3]).mean(1)


class Watched(nn.Module):
    """A model that remembers what it was asked."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(x.detach().clone())
        return self.inner(x)


def images(rows: int = 12, shape: tuple[int, ...] = (2, 6, 6), seed: int = 0) -> Tensor:
    """Pixels in [0, 1], some of them at the ends of the box."""
    x = torch.rand(rows, *shape, generator=generator(seed, "images"))
    return (1.2 * x - 0.1).clamp(0, 1)


def trained(norm: Norm | None = None, seed: int = 0) -> Small:
    """A `Small` in eval mode whose running statistics have seen images."""
    model = Small(norm, seed).train()
    for k in range(20):
        model(images(32, seed=k))
    return model.eval()


CHANNELS = 8
CLIP = (1, 4, 8, 8)


def filmed(norm: Norm | None = None, seed: int = 0, classes: int = 3) -> nn.Module:
    """A narrow 3D ResNet for clips, in evaluation: its statistics have seen clips, and every class wins somewhere."""
    with drawing(seed):
        model = ResNet3D(depth=10, width=4)(norm, classes=classes, mean=(0.5,), std=(0.3,)).train()
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name.endswith("bn2.weight"):  # at 0, where it starts, the branch does nothing
                    p.fill_(0.5)
            for k in range(5):
                model(images(24, CLIP, seed=k + 1))
            model.eval()
            model.linear.weight.mul_(20)
            model.linear.bias.sub_(model(images(40, CLIP)).mean(0))
    return model


def settled(model: nn.Module) -> nn.Module:
    """A network whose statistics have seen images, in evaluation."""
    model.train()
    for seed in range(5):
        model(images(24, seed=seed))
    return model.eval()


def beside(norm: nn.Module) -> nn.Module:
    """A network whose first norm is this one, of `CHANNELS` channels, and whose second is plain."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (
            nn.Conv2d(2, CHANNELS, 3),
            norm,
            nn.Conv2d(CHANNELS, 4, 1),
            nn.BatchNorm2d(4),
            nn.Flatten(),
            nn.Linear(64, 3),
        )
        return settled(nn.Sequential(*layers))


def decided() -> tuple[Small, Tensor, Tensor]:
    """A small network, images and its own answers, such that every class wins somewhere."""
    model, x = trained(), images(40)
    with torch.no_grad():
        model.linear.bias.sub_(model(x).mean(0))
        return model, x, model(x).argmax(1)


def shortest(model: Linear, x: Tensor, kind: str) -> Tensor:
    """The distance of each row from a linear model's boundary inside the box: clip(x + t u) reaches it at the smallest t."""
    w, score, x = model.w.detach().double(), model(x)[:, 1].detach().double(), x.double()
    u = -over(score.sign(), x) * (w if kind == "l2" else w.sign())
    low, high = torch.zeros_like(score), torch.full_like(score, 1e4)
    for _ in range(100):
        t = (low + high) / 2
        reached = ((x + over(t, x) * u).clamp(0, 1) * w).flatten(1).sum(1) * score <= 0
        low, high = torch.where(reached, low, t), torch.where(reached, t, high)
    way = ((x + over(high, x) * u).clamp(0, 1) - x).flatten(1)
    return torch.where(high < 1e4, way.norm(dim=1) if kind == "l2" else way.abs().amax(1), torch.inf)


def labels(rows: int = 12, classes: int = 3, seed: int = 0) -> Tensor:
    return torch.randint(0, classes, (rows,), generator=generator(seed, "labels"))


def quick(attack: type) -> Attack:
    """The attack with its own settings, but few steps."""
    slow = hasattr(attack, "repeats")  # of searches
    most = {"steps": 3 if slow else 20, "queries": 20, "binary_steps": 5, "repeats": 1, "restarts": 2, "updates": 10}
    few = {f.name: min(f.default, most[f.name]) for f in dataclasses.fields(attack) if f.name in most}
    return attack(**few)


def fitting(threat: type) -> ThreatModel:
    """The threat model with its own settings, but no radius beyond the box of five pixels, and for any number of channels."""
    options = {field.name: field.default for field in dataclasses.fields(threat)}
    wide = {"eps": 2.0} if options.get("eps", 0) > 2 else {}
    return threat(**wide, **{name: options[name][:1] for name in ("mean", "std") if name in options})


def takes(threat: ThreatModel, shape: tuple[int, ...]) -> bool:
    """Whether a threat model is defined for images of this shape: some are for clips alone."""
    return len(shape) == 4 or threat.name not in ("flicker", "sparse_frames")


def scene(threat: ThreatModel, shape: tuple[int, ...] = (2, 6, 6)) -> tuple[int, ...]:
    """This shape, or that of clips of such frames where the threat model needs clips."""
    return shape if takes(threat, shape) else (shape[0], 3, *shape[1:])


def seeing(model: nn.Module, threat: ThreatModel) -> nn.Module:
    """The network, or one that reads clips with it where the threat model needs clips."""
    if takes(threat, (2, 6, 6)):
        return model
    reads = OverFrames(model)
    reads.training = model.training
    return reads


class Stripes(TensorData):
    """Three classes told apart by which third of a 6x6 picture is bright: learned in seconds."""

    name = "stripes"

    def arrays(self) -> Arrays:
        x, y = [], []
        for seed, rows in (("train", 96), ("test", 60)):
            target = torch.arange(rows) % 3
            picture = 0.4 * torch.rand(rows, 2, 6, 6, generator=generator(0, seed))
            for row, third in enumerate(target.tolist()):
                picture[row, :, 2 * third : 2 * third + 2] += 0.6
            x.append(picture)
            y.append(target)
        return Arrays(x[0], y[0], x[1], y[1], ("top", "middle", "bottom"))


THREAT = Linf(eps=0.05)


def batches(count=4, size=10, last=0):
    sizes = [size] * count + ([last] if last else [])
    rows = sum(sizes)
    parts = zip(images(rows).split(sizes), labels(rows).split(sizes), torch.arange(rows).split(sizes), strict=True)
    return [Batch(*part) for part in parts]


def agreeing(model, parts):
    """The same images, labelled as the model sees them: clean accuracy is 1."""
    return [b._replace(y=model(b.x).argmax(1)) for b in parts]


def balanced():
    """A trained network whose classes are about as frequent as each other, so that attacks have something to do."""
    model = trained()
    with torch.no_grad():
        model.linear.weight.mul_(5)
        model.linear.bias.sub_(model(images(40)).mean(0))
    return model
