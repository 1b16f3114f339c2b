"""At which size the papers are put to the test: minutes, hours, or a GPU's day."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...attacks import APGD, PGD, AutoAttack
from ...data import Cifar10, Digits, ImageFolder
from ...models import PreActResNet18, ResNet, ResNet18
from ...training.schedule import Schedule
from ...types import Attack
from ..presets import DIGITS, EPS

MULTIPLES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)  # of the scale's eps: 0.25 to 8 in 1/255


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What all cells of one size share.

    Options
        data            the data set; its validation images choose checkpoints and learning rates, its test images are for the evaluation
        model           the network, made from a norm
        eps             radius of adversarial training; models are evaluated at 1/32 to 1 of it
        steps           PGD steps of adversarial training
        standard        how training on clean images proceeds
        robust          how adversarial training proceeds
        rates           learning rates that arms which train a part of the network choose from, on validation rows
        paper           the attack of the papers' protocols
        strongest       attacks of the strongest evaluation, on the images that the paper's left correct
        batch_size      images per batch in the evaluation
        seeds           number of seeds
        evidence        whether claims may be decided at this size
    """

    data: Any
    model: Any
    eps: float
    steps: int
    standard: Schedule
    robust: Schedule
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2)
    paper: Attack = PGD(steps=20, relative_step=0.1)
    strongest: tuple[Attack, ...] = (APGD(steps=50), APGD(steps=30, targets=3))
    batch_size: int = 100
    seeds: int = 3
    evidence: bool = True

    @property
    def radii(self) -> tuple[float, ...]:
        """The radii at which models are evaluated, in pixels."""
        return tuple(self.eps * multiple for multiple in MULTIPLES)


def smoke() -> Scale:
    """Every cell and every claim on digits, in minutes. Shows that all runs; is never evidence."""
    quick = replace(DIGITS, epochs=2, validate_every=2)
    return Scale(
        data=Digits(test_limit=50),
        model=ResNet(depth=8, width=8),
        eps=EPS["digits"],
        steps=2,
        standard=quick,
        robust=quick,
        rates=(1e-3, 1e-2),
        paper=PGD(steps=5, relative_step=0.25),
        strongest=(APGD(steps=10),),
        batch_size=25,
        seeds=1,
        evidence=False,
    )


def cpu() -> Scale:
    """ResNet-8 on 10,000 images of CIFAR-10, 500 test images, 3 seeds: hours on two cores."""
    adamw = Schedule(
        epochs=20, optimizer="adamw", lr=3e-3, weight_decay=5e-4, decay="onecycle", crop=4, flip=True, validate_every=5
    )
    return Scale(
        data=Cifar10(train_limit=10_000, validation_size=500, test_limit=500),
        model=ResNet(depth=8),
        eps=8 / 255,
        steps=7,
        standard=adamw,
        robust=replace(adamw, epochs=10),
    )


def gpu() -> Scale:
    """PreActResNet-18 on all of CIFAR-10, PGD-10 training, AutoAttack on 1,000 test images, 3 seeds: for a GPU."""
    sgd = Schedule(epochs=60, lr=0.1, decay="multistep", milestones=(0.5, 0.8), crop=4, flip=True, precision="bf16")
    return Scale(
        data=Cifar10(validation_size=1000, test_limit=1000),
        model=PreActResNet18(),
        eps=8 / 255,
        steps=10,
        standard=sgd,
        robust=sgd,
        rates=(0.01, 0.03, 0.1, 0.3),
        strongest=(AutoAttack(),),
        batch_size=200,
    )


def size_of(scale: Scale, parameters: int | None) -> str:
    """The size that figures of a scale are of, in words: network, its parameters where they are known, training images."""
    kind = type(scale.model).__name__.removesuffix("18") + f"-{getattr(scale.model, 'depth', 18)}"
    counted = f", {parameters:,} parameters" if parameters else ""
    images = f"{scale.data.train_limit:,} images" if scale.data.train_limit else "all training images"
    return f"{kind}{counted}, {images} of {scale.data.name}"


OTHER = "tiny-imagenet-20"


def other(scale: Scale) -> ImageFolder:
    """Data that the scale does not test on, for substitutes: 20 classes of Tiny-ImageNet at 32 x 32, as many rows.

    Looked for in $NORMWISE_DATA, then ./data: train/CLASS and val/CLASS in the folder `tiny-imagenet-20`.
    """
    places = [Path(place) / OTHER for place in (os.environ.get("NORMWISE_DATA", ""), "data") if place]
    found = next((place for place in places if place.is_dir()), places[0])
    sizes = {name: getattr(scale.data, name) for name in ("validation_size", "train_limit", "test_limit")}
    return ImageFolder(root=str(found), size=32, **sizes)


def check_other(scale: Scale) -> None:
    """Refuse to make a substitute where the other data does not suit or is not there. Raises ValueError."""
    if not isinstance(scale.data, Cifar10):
        raise ValueError(f"no data but {scale.data.name} comes with this size; a substitute of other data needs cpu or gpu")
    if not Path(root := other(scale).root).is_dir():
        raise ValueError(f"a substitute of other data needs {OTHER} (train/CLASS, val/CLASS of images); put it at {root}")


SCALES = {
    "smoke": smoke,
    "cpu": cpu,
    "gpu": gpu,
    "gpu-resnet18": lambda: replace(gpu(), model=ResNet18()),
    "gpu-resnet26": lambda: replace(gpu(), model=ResNet(depth=26, width=64)),
}
