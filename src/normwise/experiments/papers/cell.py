"""A cell: one network of an experiment, and what is asked of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from ...types import Norm, Recipe
from .scale import Scale


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One network of an experiment.

    Options
        name        its name
        system      the paper it belongs to
        about       what it is, in a few words
        begin       makes the network before training; gets the scale, and the networks it `needs`
        needs       cells whose trained networks it starts from
        recipe      how it trains; None: it does not
        clean       it trains on the schedule of clean training (else of adversarial)
        part        of the schedule's epochs
        decayed     weight decay applies to norm parameters, gains and biases too
        extras      figures beyond accuracy: of "drift", "smoothness", "legacy", and an ABNN's weaker attackers
                    "detached", "fixed"
        under       how it is evaluated: "linf" radii, "patch" (of growing size), the 15 "corruptions", "autoattack" on the images
                    that the strongest evaluation of the cell it needs left correct, "attackers" one after the other, or
                    the "columns" of several attackers, their mean and union
        at          share of the scale's radius for these two
        other       it is trained and evaluated on other data than the scale's (`scale.other`)
        clips       it is trained and evaluated on the scale's clips
        apart       it is only made if it is named or needed, because it takes longer than a cell should, or is there for another
        every       it is made with every seed, though no claim needs it
        stream      another draw of everything: images, start and batches are those of seed + 10,000 x stream
        published   depth of the published network that it is; 0: it is none
        beyond      rates that its search may try beyond the list, more than the scale's tuning has
    """

    name: str
    system: str
    about: str
    begin: Callable[..., nn.Module]
    needs: tuple[str, ...] = ()
    recipe: Callable[[Scale], Recipe] | None = None
    clean: bool = False
    part: float = 1.0
    decayed: bool = True
    extras: tuple[str, ...] = ()
    under: Literal["linf", "patch", "corruptions", "autoattack", "attackers", "columns"] = "linf"
    at: float = 1.0
    other: bool = False
    clips: bool = False
    apart: bool = False
    every: bool = False
    stream: int = 0
    published: int = 0
    beyond: int = 0


def built(norm: Norm | None) -> Callable[..., nn.Module]:
    """A fresh network of the scale with this norm at every site."""

    def begin(scale: Scale) -> nn.Module:
        model: nn.Module = scale.model(norm, classes=scale.data.classes, mean=scale.data.mean, std=scale.data.std)
        return model

    return begin
