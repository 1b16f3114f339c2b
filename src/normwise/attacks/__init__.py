"""Attacks: how the attacker searches the allowed region. An attack returns images, never a verdict."""

from ..registry import Registry
from .apgd import APGD as APGD
from .ensemble import AutoAttack as AutoAttack
from .fab import FAB as FAB
from .fgsm import FGSM as FGSM
from .pgd import BIM as BIM
from .pgd import MIM as MIM
from .pgd import PGD as PGD
from .square import Square as Square

ATTACKS = Registry("attack", __name__, vars())
