"""Recipes: what training minimizes, and what may train."""

from ..registry import Registry
from .adversarial import Adversarial as Adversarial
from .aligned import AlignedBN as AlignedBN
from .standard import Standard as Standard

RECIPES = Registry("recipe", __name__, vars())
