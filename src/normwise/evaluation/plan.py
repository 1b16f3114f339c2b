"""The attack plan: everything that is chosen before a network is attacked, in one value that is made once and passed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import torch

from ..attacks import FGSM, PGD, strongest_for
from ..registry import check_words
from ..seeding import generator
from ..types import Attack, Batch, Goal, Labels, Mode, Search, ThreatModel, check_threat
from ..utils.batches import labels_of
from .acceleration import FAST, Speed

Stateful = Literal["refuse", "restore", "sequence"]  # what becomes of a model that a forward pass changes


@dataclass(frozen=True)
class AttackPlan:
    """How a network is attacked.

    threat      what the attacker may do
    attacks     together the protocol: each sees all images that are classified correctly
    strongest   further attacks, on what `attacks` left correct (of coupled rows again on every batch)
    seed        of all random draws
    mode        "eval" or "train": the mode of the network when it is attacked and when its answers are checked
    stateful    a network whose forward pass changes its buffers is refused; "restore" puts them back after each pass;
                "sequence" keeps what each batch's worst case did to them, in the order of the batches
    speed       on which copy of the network is searched, and by which shortcuts
    goal        "misclassified": any wrong class; "targeted": the class to reach
    classes     the class to reach of each image, in the order of the batches; empty: the one after the label

    Raises ValueError for what is not a list of attacks, a word that is none of these, and classes without the goal
    "targeted".
    """

    threat: ThreatModel
    attacks: Sequence[Attack]
    _: KW_ONLY
    strongest: Sequence[Attack] = ()
    seed: int = 0
    mode: Mode = "eval"
    stateful: Stateful = "refuse"
    speed: Speed = FAST
    goal: Goal = "misclassified"
    classes: Sequence[int] = ()

    def __post_init__(self) -> None:
        check_threat(self.threat)
        for attacks, name in ((self.attacks, "attacks"), (self.strongest, "strongest")):
            if not isinstance(attacks, Sequence) or not all(callable(attack) for attack in attacks):
                raise ValueError(f"{name} is {attacks!r}; expected a list of attacks, such as [PGD()]")
            object.__setattr__(self, name, tuple(attacks))
        check_words(self)
        object.__setattr__(self, "classes", tuple(map(int, self.classes)))
        if self.classes and not self.targeted:
            raise ValueError(
                f"{len(self.classes)} classes to reach are given, and the goal is {self.goal}; say goal='targeted'"
            )

    @property
    def every(self) -> tuple[Attack, ...]:
        """All that search, the strongest last."""
        return (*self.attacks, *self.strongest)

    @property
    def targeted(self) -> bool:
        """Whether a class is to be reached."""
        return self.goal == "targeted"

    def search(self, independent: bool, stops: bool) -> Search:
        """What an attack may count on."""
        return Search(independent=independent, stops=stops, give_up=self.speed.give_up, goal=self.goal)

    def labels_to_attack(self, batches: Sequence[Batch], classes: int) -> list[Labels]:
        """Per batch what attacks are given as `y`: the labels, or the classes to reach. Raises ValueError for classes that cannot be."""
        own = labels_of(batches)
        if not self.targeted:
            return own
        if not self.classes:
            return [(y + 1) % classes for y in own]
        sizes = [len(y) for y in own]
        if len(self.classes) != sum(sizes):
            raise ValueError(f"{len(self.classes)} classes to reach for {sum(sizes)} images; give one per image, or none")
        wanted = torch.tensor(self.classes).split(sizes)
        for y, aim in zip(own, wanted, strict=True):
            if (aim == y.cpu()).any() or aim.min() < 0 or aim.max() >= classes:
                raise ValueError(
                    f"a class to reach must be from 0 to {classes - 1}, and not the image's own label; correct `classes`"
                )
        return [aim.to(y) for y, aim in zip(own, wanted, strict=True)]


def planned(threat: ThreatModel | AttackPlan, attacks: Sequence[Attack] | Attack | None) -> AttackPlan:
    """A plan as it is, or one of a threat model and attacks: one, several, or those that the command line takes (None).

    Raises ValueError for a plan and attacks.
    """
    if isinstance(threat, AttackPlan):
        if attacks is not None:
            raise ValueError("attacks are given beside a plan, which has its own; give them in the plan")
        return threat
    if attacks is None:
        return AttackPlan(threat, (FGSM(), PGD()), strongest=strongest_for(threat))
    return AttackPlan(threat, [attacks] if isinstance(attacks, Attack) else attacks)


def settle_strongest(settings: Any) -> None:
    """Where frozen settings name no strongest attacks (None), give them those that suit their threat model."""
    if settings.strongest is None:
        object.__setattr__(settings, "strongest", strongest_for(settings.threat))


def check_attacks(attacks: Sequence[Attack], threat: ThreatModel, batch: Batch, goal: Goal = "misclassified") -> None:
    """Refuse attacks that cannot work in a threat model, or towards a goal, before any work is done. Raises ValueError."""
    region = threat.around(batch.x[:1], generator=generator(0))
    for attack in attacks:
        if check := getattr(attack, "check", None):
            check(region, goal)
