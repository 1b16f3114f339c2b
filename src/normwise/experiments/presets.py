"""Named experiments, as functions without arguments; and the default settings of each data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..data import Cifar10, Digits, MovingDigits
from ..models import ResNet, ResNet3D, ResNet18, ViT
from ..registry import plain
from ..threats import Linf
from ..threats.scaled import KINDS
from ..training.recipes import Adversarial
from ..training.schedule import Schedule
from .experiment import Experiment

# The default radius of a data set. Digits and moving digits: the smallest of 0.05, 0.1, 0.15, 0.2, 0.3 at
# which the standard BatchNorm network keeps less than 5% on validation under PGD-20 (results/digits-eps). MNIST: Madry et al.
# 2018. The others: the field's 8/255.
EPS = {"digits": 0.2, "moving-digits": 0.1, "mnist": 0.3}
DIGITS = Schedule(
    epochs=40, batch_size=64, optimizer="adamw", lr=3e-3, weight_decay=5e-4, decay="onecycle", validate_every=10
)


def digits() -> Experiment:
    """ResNet-8 on scikit-learn's digits: seconds on a CPU."""
    return Experiment(
        data=Digits(), model=ResNet(depth=8), threat=Linf(eps=EPS["digits"]), schedule=DIGITS, batch_size=25, threads=1
    )


def cifar10() -> Experiment:
    """ResNet-20 on CIFAR-10, standard training for 10 epochs: under half an hour on two cores."""
    schedule = Schedule(epochs=10, lr=0.4, decay="onecycle", crop=4, flip=True)
    return Experiment(data=Cifar10(), model=ResNet(depth=20), schedule=schedule, batch_size=250)


def cifar10_at() -> Experiment:
    """ResNet-18 on CIFAR-10, PGD-10 adversarial training after Madry et al. 2018 and Rice et al. 2020: for a GPU."""
    schedule = Schedule(epochs=110, decay="multistep", milestones=(100 / 110, 105 / 110), crop=4, flip=True)
    recipe = Adversarial(steps=10)
    return Experiment(data=Cifar10(), model=ResNet18(), recipe=recipe, schedule=schedule, batch_size=500)


def moving_digits() -> Experiment:
    """A narrow 3D ResNet-10 on clips of moving digits: two minutes on two cores."""
    schedule = replace(DIGITS, epochs=10, validate_every=5)
    model = ResNet3D(depth=10, width=8)
    return Experiment(
        data=MovingDigits(), model=model, threat=Linf(eps=EPS["moving-digits"]), schedule=schedule, batch_size=50
    )


PRESETS: dict[str, Callable[[], Experiment]] = {
    "digits": digits,
    "moving-digits": moving_digits,
    "cifar10": cifar10,
    "cifar10-at": cifar10_at,
}


# Networks whose size on a data set is not their default.
SIZES: dict[tuple[str, str], Any] = {("digits", "vit"): ViT(side=8, stem="conv", depth=2)}


def defaults_for(data_name: str, model_name: str = "") -> dict[str, Any]:
    """Default settings of a data set, as plain data: those of the preset of its name, else only a radius; and a network's size there."""
    sized = SIZES.get((data_name, model_name))
    own = {"model": plain(sized)} if sized else {}
    if data_name in PRESETS:
        return plain(PRESETS[data_name]()) | {"strongest": None} | own  # those that suit the threat model which is named
    return {"threat": {"name": "linf", "eps": EPS.get(data_name, 8 / 255)}} | own


# The data of a domain, and the methods that its bench compares: ABNN and the baselines of the papers on adversarial videos.
# "other" is the substitute, and what is fine-tuned: of other data where there is some with the same shape, and of other seeds.
DOMAINS = {"image": "digits", "video": "moving-digits"}
BASELINES: dict[str, Any] = {
    "norms": ["bn"],
    "recipes": ["standard", "adversarial", "multi", {"name": "multi", "over": "max"}],
    "methods": [
        {"name": "multibn", "norm": "multibn", "recipe": "multibn"},
        {"name": "abnn", "substitute": "other", "recipe": "abnn"},
        {"name": "extra-bn", "adaptive": {"source": "plain"}, "recipe": "abnn"},
        {"name": "fine-tuned", "start": "other"},
        *({"name": f"at-{kind}", "norm": "bn", "recipe": {"name": "multi", "kinds": [kind]}} for kind in KINDS[1:]),
    ],
    "columns": {"kinds": list(KINDS[1:])},
}

OTHER = {"moving-digits": {"data": {"axis": "vertical"}}}

# What a bench compares in a network that is not built for BatchNorm.
COMPARED: dict[str, dict[str, Any]] = {"vit": {"norms": ["layernorm2d", "rmsnorm", "dyt", "derf", "bn", "none"]}}


def data_name(given: Mapping[str, Any], otherwise: str = "digits") -> str:
    """The name of the data set that the given settings choose."""
    return _named(given, "data", otherwise)


def model_name(given: Mapping[str, Any]) -> str:
    """The name of the network that the given settings choose; empty where they choose none."""
    return _named(given, "model", "")


def _named(given: Mapping[str, Any], kind: str, otherwise: str) -> str:
    choice = given.get(kind)
    return str(choice.get("name", otherwise)) if isinstance(choice, Mapping) else otherwise
