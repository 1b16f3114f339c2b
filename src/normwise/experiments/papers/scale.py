"""At which size the papers are put to the test: minutes, the ladder S, M and L, or a GPU's day."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...attacks import APGD, PGD, STRONGEST, AutoAttack, PatchAttack
from ...data import Cifar10, Digits, ImageFolder, MovingDigits
from ...models import PreActResNet18, ResNet, ResNet3D, ResNet18
from ...training.schedule import Schedule
from ...types import Attack
from ..columns import Columns
from ..presets import DIGITS, EPS
from ..tuning import Tuning

STREAM = 10_000  # between the seeds of two streams: more than anybody asks for
EIGHTH, WHOLE = 1 / 8, 1.0  # of the scale's eps, where claims are decided: 1/255 and 8/255
MULTIPLES = (1 / 32, 1 / 16, EIGHTH, 1 / 4, 1 / 2, WHOLE)  # where networks are judged: 0.25 to 8 in 1/255


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What all cells of one size share.

    Options
        data            the data set; each seed has a split of its own: its validation images choose checkpoints and learning rates,
                        its test images are for the evaluation
        model           the network, made from a norm
        eps             radius of adversarial training; models are evaluated at 1/32 to 1 of it
        steps           PGD steps of adversarial training
        standard        how training on clean images proceeds
        robust          how adversarial training proceeds
        rates           learning rates that every arm chooses from
        tuning          how it chooses; None: it does not, as at sizes of before
        paper           the attack of the papers' protocols
        strongest       attacks of the strongest evaluation, on the images that the paper's left correct
        patches         the strongest search of cells under patches, after stickers
        columns         the attackers of cells before several of them, and how they search
        batch_size      images per batch in the evaluation
        curve           test rows of seeds that decide, at radii where no claim is decided, and at all where rows are coupled;
                        0: all. Figures that no claim reads are then left to the seeds before
        first           the first seed that decides. Seeds before it tune, and show whether premises hold, on other test images
        looks           the numbers of deciding seeds at which the table may be read; the first is what is made unless more are asked
        evidence        whether claims may be decided at this size
        cells           the cells that are made unless others are named; empty: all
        published       folder of the published networks; "" where there is none
        clips           the same for cells on clips; None: none are made at this size
    """

    data: Any
    model: Any
    eps: float
    steps: int
    standard: Schedule
    robust: Schedule
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2)
    tuning: Tuning | None = None
    paper: Attack = PGD(steps=20, relative_step=0.1)
    strongest: tuple[Attack, ...] = STRONGEST
    patches: Attack = PatchAttack(steps=20, repeats=5, queries=1000)
    columns: Columns = Columns(kinds=("l2", "multav", "roa", "af", "spa"), search=20, repeats=3, queries=300)
    batch_size: int = 100
    curve: int = 0
    first: int = 0
    looks: tuple[int, ...] = (3,)
    evidence: bool = True
    cells: tuple[str, ...] = ()
    published: str = ""
    clips: Scale | None = None

    @property
    def radii(self) -> tuple[float, ...]:
        """The radii at which models are evaluated, in pixels."""
        return tuple(self.eps * multiple for multiple in MULTIPLES)

    def of_seed(self, seed: int, stream: int = 0) -> Scale:
        """The same with the data of a seed: a split of its own. Seeds that do not decide are judged on the test images after the others."""
        later, split = {"test_from": self.data.test_limit}, seed + STREAM * stream
        if seed < self.first:
            return replace(self, data=replace(self.data, split_seed=split, **later), curve=0)
        return replace(self, data=replace(self.data, split_seed=split))


ADAMW = Schedule(
    epochs=20, optimizer="adamw", lr=3e-3, weight_decay=5e-4, decay="onecycle", crop=4, flip=True, validate_every=5
)
LADDER = replace(
    ADAMW, precision="bf16"
)  # of sizes S, M and L: all networks train, and are attacked in training, in bfloat16
RATES = (1e-3, 3e-3, 1e-2)
M_CELLS = ("bn-standard", "bn-half", "bn-quarter", "bn-eighth", "bnwot", "rnt-standard", "rn", "none-standard", "nf-standard", "bn-at", "bn-mixed", "nofrost", "bn-foreign", "abnn-foreign")  # fmt: skip
L_CELLS = tuple(f"{kind}-published-{depth}" for depth in (20, 32, 56) for kind in ("bn", "affine", "abnn"))


def smoke() -> Scale:
    """Every cell and every claim on digits, in minutes. Shows that all runs; is never evidence."""
    quick = replace(DIGITS, epochs=2, validate_every=2)
    images = Scale(
        data=Digits(test_limit=50),
        model=ResNet(depth=8, width=8),
        eps=EPS["digits"],
        steps=2,
        standard=quick,
        robust=quick,
        rates=(3e-3,),
        tuning=Tuning(most=0, rows=200),
        paper=PGD(steps=5, relative_step=0.25),
        strongest=(APGD(steps=10),),
        patches=PatchAttack(steps=2, repeats=1, queries=10),
        columns=Columns(kinds=("l2", "multav", "roa", "af", "spa"), steps=2, search=0),
        batch_size=25,
        looks=(1,),
        evidence=False,
    )
    clips = MovingDigits(train_limit=200, test_limit=20)
    return _beside_clips(images, data=clips, model=ResNet3D(depth=18, width=4), batch_size=10)


def _beside_clips(images: Scale, **changes: Any) -> Scale:
    """The same scale, with moving digits for cells on clips."""
    return replace(images, clips=replace(images, eps=0.2, **changes))  # the radius of the records


def s() -> Scale:
    """Size S: ResNet-8 on 10,000 images of CIFAR-10, anew for each seed, 2,000 test images, 5 seeds and then 8.

    Clips: 1,097 moving digits, 250 to test, in float32.
    """
    images = Scale(
        data=Cifar10(train_limit=10_000, validation_size=1000, test_limit=2000),
        model=ResNet(depth=8),
        eps=8 / 255,
        steps=7,
        standard=LADDER,
        robust=replace(LADDER, epochs=10),
        rates=RATES,
        tuning=Tuning(),
        curve=500,
        first=1,
        looks=(5, 8),
    )
    brief = replace(DIGITS, epochs=10)
    return _beside_clips(
        images,
        data=MovingDigits(test_limit=250),
        model=ResNet3D(depth=10, width=4),
        standard=brief,
        robust=brief,
        tuning=Tuning(rows=200),
        curve=100,
        batch_size=50,
    )


def m() -> Scale:
    """Size M: ResNet-20 of width 16 on all of CIFAR-10, 2,000 test images, 3 seeds and then 5: a GPU is advised."""
    schedule = replace(LADDER, epochs=15)
    return replace(
        s(),
        data=Cifar10(validation_size=1000, test_limit=2000),
        model=ResNet(depth=20),
        standard=schedule,
        robust=schedule,
        looks=(3, 5),
        cells=M_CELLS,
        clips=None,
    )


def large() -> Scale:
    """Size L: published ResNet-20, 32 and 56, of which norms alone train, on 10,000 images of CIFAR-10, K = 3, 3 seeds and then 5.

    Each published network is one training on all 50,000 images.
    """
    schedule = replace(LADDER, epochs=10)
    return replace(
        s(),
        model=ResNet(depth=20, shortcut="pad"),
        steps=3,
        standard=schedule,
        robust=schedule,
        looks=(3, 5),
        cells=L_CELLS,
        clips=None,
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
        rates=(0.03, 0.1, 0.3),
        tuning=Tuning(),
        strongest=(AutoAttack(),),
        batch_size=200,
        first=1,
    )


def cpu() -> Scale:
    """The size of before: ResNet-8 on 10,000 images, 500 test images, one learning rate for all. Its records are history."""
    return Scale(
        data=Cifar10(train_limit=10_000, validation_size=500, test_limit=500),
        model=ResNet(depth=8),
        eps=8 / 255,
        steps=7,
        standard=ADAMW,
        robust=replace(ADAMW, epochs=10),
    )


def size_of(scale: Scale, parameters: int | None) -> str:
    """The size that figures of a scale are of, in words: network, its parameters where they are known, training images."""
    kind = type(scale.model).__name__.removesuffix("18") + f"-{getattr(scale.model, 'depth', 18)}"
    counted = f", {parameters:,} parameters" if parameters else ""
    rows = "clips" if isinstance(scale.data, MovingDigits) else "images"
    images = f"{scale.data.train_limit:,} {rows}" if scale.data.train_limit else f"all training {rows}"
    beside = f"; for clips {size_of(scale.clips, None)}" if scale.clips else ""
    return f"{kind}{counted}, {images} of {scale.data.name}{beside}"


OTHER = "tiny-imagenet-20"


def other(scale: Scale) -> Any:
    """Data that the scale does not test on, for substitutes: 20 classes of Tiny-ImageNet at 32 x 32, as many rows; of moving digits those that move up or down.

    Looked for in $NORMWISE_DATA, then ./data: train/CLASS and val/CLASS in the folder `tiny-imagenet-20`.
    """
    if isinstance(scale.data, MovingDigits):
        return replace(scale.data, axis="vertical")
    places = [Path(place) / OTHER for place in (os.environ.get("NORMWISE_DATA", ""), "data") if place]
    found = next((place for place in places if place.is_dir()), places[0])
    sizes = {name: getattr(scale.data, name) for name in ("validation_size", "train_limit", "test_limit")}
    return ImageFolder(root=str(found), size=32, **sizes)


def check_other(scale: Scale) -> None:
    """Refuse to make a substitute where the other data does not suit or is not there. Raises ValueError."""
    if isinstance(scale.data, MovingDigits):
        return
    if not isinstance(scale.data, Cifar10):
        raise ValueError(f"no data but {scale.data.name} comes with this size; a substitute of other data needs s, m or gpu")
    if not Path(root := other(scale).root).is_dir():
        raise ValueError(f"a substitute of other data needs {OTHER} (train/CLASS, val/CLASS of images); put it at {root}")


SCALES = {
    "smoke": smoke,
    "s": s,
    "m": m,
    "l": large,
    "gpu": gpu,
    "gpu-resnet18": lambda: replace(gpu(), model=ResNet18()),
    "gpu-resnet26": lambda: replace(gpu(), model=ResNet(depth=26, width=64)),
}
HISTORY = {"cpu": cpu}  # its records are read and shown; nothing is made
SIZES = {"s": "S", "m": "M", "l": "L"}  # what a verdict calls them; other presets go by their own name
