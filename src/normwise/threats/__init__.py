"""Threat models: what the attacker may do to a batch."""

from ..registry import Registry
from .flicker import Flicker as Flicker
from .l1 import L1 as L1
from .lp import L2 as L2
from .lp import Linf as Linf
from .masked import Frame as Frame
from .masked import Patch as Patch
from .multav import MultAV as MultAV
from .normalized import Normalized as Normalized
from .spa import SPA as SPA
from .sparse_frames import SparseFrames as SparseFrames

THREATS = Registry("threat model", __name__, vars())
