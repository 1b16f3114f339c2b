"""Attacks: how the attacker searches the allowed region. An attack returns images, never a verdict."""

from ..registry import Registry
from .apgd import APGD as APGD
from .fgsm import FGSM as FGSM
from .pgd import PGD as PGD

ATTACKS = Registry("attack", __name__, vars())
