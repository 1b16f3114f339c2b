"""normwise: does changing how a network normalizes make it adversarially robust, really, and at what cost?

The front door is lazy: `import normwise` loads nothing, and a name loads its module when it is first used.

>>> import normwise
>>> normwise.PGD(steps=50).label
'pgd-50'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see; `_ROOMS` below is the same list for the interpreter
    from .attacks import ATTACKS as ATTACKS
    from .attacks import FGSM as FGSM
    from .attacks import PGD as PGD
    from .attacks import AutoAttack as AutoAttack
    from .attacks import worst_case as worst_case
    from .attacks.bpda import straight_through as straight_through
    from .auditing.attack_tests import selftest as selftest
    from .auditing.auditor import audit as audit
    from .data import DATA as DATA
    from .diagnostics.run import diagnose as diagnose
    from .evaluation.acceleration import Speed as Speed
    from .evaluation.coupling import Coupling as Coupling
    from .evaluation.coupling import measure_coupling as measure_coupling
    from .evaluation.curves import curve as curve
    from .evaluation.evaluator import Verdict as Verdict
    from .evaluation.evaluator import evaluate as evaluate
    from .evaluation.sanity_checks import annotate as annotate
    from .experiments.experiment import Experiment as Experiment
    from .experiments.experiment import run as run
    from .experiments.grid import Bench as Bench
    from .experiments.grid import run_bench as run_bench
    from .models import MODELS as MODELS
    from .models.abnn import Adaptive as Adaptive
    from .models.abnn import abnn as abnn
    from .models.abnn import detached as detached
    from .models.abnn import fixed_at as fixed_at
    from .models.loading import load as load
    from .norms import NORMS as NORMS
    from .norms import RobustNorm1d as RobustNorm1d
    from .norms import RobustNorm2d as RobustNorm2d
    from .norms import RobustNorm3d as RobustNorm3d
    from .norms import StatNorm as StatNorm
    from .norms import norm_reads as norm_reads
    from .norms import routed as routed
    from .norms import sites as sites
    from .norms.surgery.adaptation import with_share as with_share
    from .norms.surgery.conversion import convert as convert
    from .norms.surgery.conversion import convert_sync as convert_sync
    from .norms.surgery.conversion import insert as insert
    from .norms.surgery.conversion import recalibrate as recalibrate
    from .norms.surgery.folding import fold as fold
    from .norms.surgery.trainable import only as only
    from .norms.surgery.trainable import only_affine as only_affine
    from .norms.surgery.unmapped import unmapped as unmapped
    from .seeding import generator as generator
    from .threats import L2 as L2
    from .threats import THREATS as THREATS
    from .threats import Linf as Linf
    from .training.loop import fit as fit
    from .training.recipes import RECIPES as RECIPES
    from .training.recipes import Adversarial as Adversarial
    from .training.recipes import Standard as Standard
    from .training.schedule import Schedule as Schedule
    from .types import Batch as Batch

__version__ = "0.1.0"

_ROOMS = {
    "attacks": (
        "ATTACKS",
        "FGSM",
        "PGD",
        "AutoAttack",
        "worst_case",
    ),
    "attacks.bpda": ("straight_through",),
    "auditing.attack_tests": ("selftest",),
    "auditing.auditor": ("audit",),
    "data": ("DATA",),
    "diagnostics.run": ("diagnose",),
    "evaluation.acceleration": ("Speed",),
    "evaluation.coupling": (
        "Coupling",
        "measure_coupling",
    ),
    "evaluation.curves": ("curve",),
    "evaluation.evaluator": (
        "Verdict",
        "evaluate",
    ),
    "evaluation.sanity_checks": ("annotate",),
    "experiments.experiment": (
        "Experiment",
        "run",
    ),
    "experiments.grid": (
        "Bench",
        "run_bench",
    ),
    "models": ("MODELS",),
    "models.abnn": (
        "Adaptive",
        "abnn",
        "detached",
        "fixed_at",
    ),
    "models.loading": ("load",),
    "norms": (
        "NORMS",
        "RobustNorm1d",
        "RobustNorm2d",
        "RobustNorm3d",
        "StatNorm",
        "norm_reads",
        "routed",
        "sites",
    ),
    "norms.surgery.adaptation": ("with_share",),
    "norms.surgery.conversion": (
        "convert",
        "convert_sync",
        "insert",
        "recalibrate",
    ),
    "norms.surgery.folding": ("fold",),
    "norms.surgery.trainable": (
        "only",
        "only_affine",
    ),
    "norms.surgery.unmapped": ("unmapped",),
    "seeding": ("generator",),
    "threats": (
        "L2",
        "THREATS",
        "Linf",
    ),
    "training.loop": ("fit",),
    "training.recipes": (
        "RECIPES",
        "Adversarial",
        "Standard",
    ),
    "training.schedule": ("Schedule",),
    "types": ("Batch",),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module 'normwise' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
