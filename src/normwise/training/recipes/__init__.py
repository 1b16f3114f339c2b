"""Recipes: what training minimizes, and what may train."""

from ...registry import Registry
from .adversarial import Adversarial as Adversarial
from .aligned import AlignedBN as AlignedBN
from .fast import FGSMRS as FGSMRS
from .fast import NFGSM as NFGSM
from .mixed import Mixed as Mixed
from .multi import Multi as Multi
from .multibn import MultiRoutes as MultiRoutes
from .nofrost import MixedStar as MixedStar
from .nofrost import NoFrost as NoFrost
from .nofrost import NoFrostStar as NoFrostStar
from .routes import Routes as Routes
from .standard import Standard as Standard
from .trades import TRADES as TRADES

RECIPES = Registry("recipe", __name__, vars())
