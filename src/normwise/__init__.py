"""normwise: does changing how a network normalizes make it adversarially robust, really, and at what cost?

The front door is lazy: `import normwise` loads nothing, and a name loads its module when it is first used.

>>> import normwise
>>> normwise.PGD(steps=50).label
'pgd-50'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see; `_ROOMS` below is the same list for the interpreter
    from .adaptive import Adaptive as Adaptive
    from .adaptive import abnn as abnn
    from .adaptive import detached as detached
    from .adaptive import fixed_at as fixed_at
    from .attacks import ATTACKS as ATTACKS
    from .attacks import FGSM as FGSM
    from .attacks import PGD as PGD
    from .attacks import AutoAttack as AutoAttack
    from .attacks import worst_case as worst_case
    from .auditing import audit as audit
    from .backward import straight_through as straight_through
    from .bench import Bench as Bench
    from .bench import run_bench as run_bench
    from .coupling import Coupling as Coupling
    from .coupling import measure_coupling as measure_coupling
    from .curves import curve as curve
    from .data import DATA as DATA
    from .diagnoses.run import diagnose as diagnose
    from .doubts import annotate as annotate
    from .experiment import Experiment as Experiment
    from .experiment import run as run
    from .folding import fold as fold
    from .limits import unmapped as unmapped
    from .loading import load as load
    from .models import MODELS as MODELS
    from .norms import NORMS as NORMS
    from .norms import RobustNorm1d as RobustNorm1d
    from .norms import RobustNorm2d as RobustNorm2d
    from .norms import RobustNorm3d as RobustNorm3d
    from .norms import StatNorm as StatNorm
    from .norms import norm_reads as norm_reads
    from .norms import routed as routed
    from .norms import sites as sites
    from .recipes import RECIPES as RECIPES
    from .recipes import Adversarial as Adversarial
    from .recipes import Standard as Standard
    from .schedule import Schedule as Schedule
    from .seeding import generator as generator
    from .selftests import selftest as selftest
    from .sharing import with_share as with_share
    from .speed import Speed as Speed
    from .surgery import convert as convert
    from .surgery import convert_sync as convert_sync
    from .surgery import insert as insert
    from .surgery import recalibrate as recalibrate
    from .threats import L2 as L2
    from .threats import THREATS as THREATS
    from .threats import Linf as Linf
    from .trainable import only as only
    from .trainable import only_affine as only_affine
    from .training import fit as fit
    from .types import Batch as Batch
    from .verdict import Verdict as Verdict
    from .verdict import evaluate as evaluate

__version__ = "0.1.0"

_ROOMS = {
    "adaptive": ("Adaptive", "abnn", "detached", "fixed_at"),
    "attacks": ("ATTACKS", "FGSM", "PGD", "AutoAttack", "worst_case"),
    "auditing": ("audit",),
    "backward": ("straight_through",),
    "bench": ("Bench", "run_bench"),
    "coupling": ("Coupling", "measure_coupling"),
    "curves": ("curve",),
    "data": ("DATA",),
    "diagnoses.run": ("diagnose",),
    "doubts": ("annotate",),
    "experiment": ("Experiment", "run"),
    "folding": ("fold",),
    "limits": ("unmapped",),
    "loading": ("load",),
    "models": ("MODELS",),
    "norms": ("NORMS", "RobustNorm1d", "RobustNorm2d", "RobustNorm3d", "StatNorm", "norm_reads", "routed", "sites"),
    "recipes": ("RECIPES", "Adversarial", "Standard"),
    "schedule": ("Schedule",),
    "seeding": ("generator",),
    "selftests": ("selftest",),
    "sharing": ("with_share",),
    "speed": ("Speed",),
    "surgery": ("convert", "convert_sync", "insert", "recalibrate"),
    "threats": ("L2", "THREATS", "Linf"),
    "trainable": ("only", "only_affine"),
    "training": ("fit",),
    "types": ("Batch",),
    "verdict": ("Verdict", "evaluate"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module 'normwise' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
