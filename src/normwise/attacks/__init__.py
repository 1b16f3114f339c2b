"""Attacks: how the attacker searches the allowed region. An attack returns images, never a verdict."""

from ..registry import Registry
from .apgd import APGD as APGD
from .base import BaseAttack
from .corner import Corner as Corner
from .cw import CW as CW
from .ddn import DDN as DDN
from .deepfool import DeepFool as DeepFool
from .ensemble import AutoAttack as AutoAttack
from .ensemble import worst_case as worst_case
from .fab import FAB as FAB
from .fgsm import FGSM as FGSM
from .fmn import FMN as FMN
from .loap import LOAP as LOAP
from .patchattack import PatchAttack as PatchAttack
from .pgd import BIM as BIM
from .pgd import MIM as MIM
from .pgd import PGD as PGD
from .pgd import MultiTargeted as MultiTargeted
from .roa import ROA as ROA
from .sigma_zero import SigmaZero as SigmaZero
from .sparse_rs import SparseRS as SparseRS
from .square import Square as Square
from .strongest import STRONGEST as STRONGEST
from .strongest import strongest_for as strongest_for
from .universal import Universal as Universal

ATTACKS = Registry("attack", __name__, vars())
BaseAttack.registered = ATTACKS  # for what an attack says that is asked about a region it is not made for
