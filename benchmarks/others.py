"""The peers, each behind one call: attack(x, y, eps, steps, seed) -> x_adv, steps of eps / 4 from a random start."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from normwise.types import Batch

Attack = Callable[[Tensor, Tensor, float, int, int], Tensor]
PACKAGES = {
    "torchattacks": "torchattacks",
    "foolbox": "foolbox",
    "art": "adversarial-robustness-toolbox",
    "adv_lib": "adv-lib",
}


def there(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def missing() -> list[str]:
    return [name for name in PACKAGES if not there(name)]


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(package) for name, package in PACKAGES.items() if there(name)}


def torchattacks(model: nn.Module) -> Attack:
    import torchattacks

    def attack(x: Tensor, y: Tensor, eps: float, steps: int, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return torchattacks.PGD(model, eps=eps, alpha=eps / 4, steps=steps, random_start=True)(x, y)

    return attack


def foolbox(model: nn.Module) -> Attack:
    import foolbox

    def attack(x: Tensor, y: Tensor, eps: float, steps: int, seed: int) -> Tensor:
        torch.manual_seed(seed)
        bounded = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
        pgd = foolbox.attacks.LinfPGD(rel_stepsize=0.25, steps=steps, random_start=True)
        return pgd(bounded, x, y, epsilons=eps)[1]

    return attack


def art(model: nn.Module) -> Attack:
    import numpy as np
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    def attack(x: Tensor, y: Tensor, eps: float, steps: int, seed: int) -> Tensor:
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        classifier = PyTorchClassifier(
            model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0, 1), device_type="cpu"
        )
        options: dict[str, Any] = {"norm": np.inf, "eps": eps, "eps_step": eps / 4, "max_iter": steps, "num_random_init": 1}
        pgd = ProjectedGradientDescentPyTorch(classifier, batch_size=len(x), verbose=False, **options)
        return torch.from_numpy(pgd.generate(x.numpy(), y.numpy()))

    return attack


def adv_lib(model: nn.Module) -> Attack:
    _stand_in("torchvision", "torchvision.utils", "visdom")  # imported for its plots alone
    from adv_lib.attacks import pgd_linf

    def attack(x: Tensor, y: Tensor, eps: float, steps: int, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return pgd_linf(model, x, y, eps, steps=steps, random_init=True, restarts=1, relative_step_size=0.25)

    return attack


PGD: dict[str, Callable[[nn.Module], Attack]] = {
    "torchattacks": torchattacks,
    "foolbox": foolbox,
    "art": art,
    "adv_lib": adv_lib,
}


def reference(
    model: nn.Module, batch: Batch, eps: float, attacks: list[str], seed: int, steps: int = 100, queries: int = 5000
) -> Tensor:
    """The reference's own worst case over some of its parts, its output kept quiet."""
    from autoattack import AutoAttack

    made = AutoAttack(
        model, norm="Linf", eps=eps, version="custom", attacks_to_run=attacks, device="cpu", seed=seed, verbose=False
    )
    made.apgd.n_iter, made.apgd.n_restarts, made.square.n_queries = steps, 1, queries
    return made.run_standard_evaluation(batch.x, batch.y, bs=len(batch.y))


def _stand_in(*names: str) -> None:
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:  # absent, or built for another torch
            sys.modules[name] = _Nothing(name)


class _Nothing(types.ModuleType):
    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **options: None
