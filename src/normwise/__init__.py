"""normwise: does changing how a network normalizes make it adversarially robust, really, and at what cost?

The front door is lazy: `import normwise` loads nothing, and a name loads its module when it is first used.

>>> import normwise
>>> normwise.PGD(steps=50).label
'pgd-50'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see; `_EXPORTS` below is the same list for the interpreter
    from .attacks import APGD as APGD
    from .attacks import ATTACKS as ATTACKS
    from .attacks import BIM as BIM
    from .attacks import CW as CW
    from .attacks import DDN as DDN
    from .attacks import FAB as FAB
    from .attacks import FGSM as FGSM
    from .attacks import FMN as FMN
    from .attacks import LOAP as LOAP
    from .attacks import MIM as MIM
    from .attacks import PGD as PGD
    from .attacks import ROA as ROA
    from .attacks import AutoAttack as AutoAttack
    from .attacks import Corner as Corner
    from .attacks import DeepFool as DeepFool
    from .attacks import MultiTargeted as MultiTargeted
    from .attacks import PatchAttack as PatchAttack
    from .attacks import SigmaZero as SigmaZero
    from .attacks import SparseRS as SparseRS
    from .attacks import Square as Square
    from .attacks import Universal as Universal
    from .attacks import strongest_for as strongest_for
    from .attacks import worst_case as worst_case
    from .attacks.bpda import straight_through as straight_through
    from .auditing.attack_tests import selftest as selftest
    from .auditing.auditor import audit as audit
    from .auditing.options import AuditOptions as AuditOptions
    from .data import DATA as DATA
    from .data import ArrayFile as ArrayFile
    from .data import Cifar10 as Cifar10
    from .data import Cifar10C as Cifar10C
    from .data import Cifar100 as Cifar100
    from .data import Cifar101 as Cifar101
    from .data import Digits as Digits
    from .data import FashionMnist as FashionMnist
    from .data import ImageFolder as ImageFolder
    from .data import Mnist as Mnist
    from .data import MovingDigits as MovingDigits
    from .data import Svhn as Svhn
    from .data import TensorData as TensorData
    from .diagnostics.run import diagnose as diagnose
    from .evaluation.acceleration import Speed as Speed
    from .evaluation.coupling import Coupling as Coupling
    from .evaluation.coupling import measure_coupling as measure_coupling
    from .evaluation.craft import attack as attack
    from .evaluation.curves import curve as curve
    from .evaluation.evaluator import evaluate as evaluate
    from .evaluation.plan import AttackPlan as AttackPlan
    from .evaluation.store import Shard as Shard
    from .evaluation.verdict import Verdict as Verdict
    from .experiments.experiment import Experiment as Experiment
    from .experiments.experiment import run as run
    from .experiments.grid import Bench as Bench
    from .experiments.grid import run_bench as run_bench
    from .models import MODELS as MODELS
    from .models import VGG as VGG
    from .models import ConvNeXt as ConvNeXt
    from .models import FrameResNet as FrameResNet
    from .models import NFResNet as NFResNet
    from .models import NFResNet26 as NFResNet26
    from .models import NFResNet50 as NFResNet50
    from .models import PreActResNet18 as PreActResNet18
    from .models import R2Plus1D as R2Plus1D
    from .models import ResNet as ResNet
    from .models import ResNet3D as ResNet3D
    from .models import ResNet18 as ResNet18
    from .models import Standardize as Standardize
    from .models import ViT as ViT
    from .models import WideResNet as WideResNet
    from .models.abnn import Adaptive as Adaptive
    from .models.abnn import abnn as abnn
    from .models.abnn import detached as detached
    from .models.abnn import fixed_at as fixed_at
    from .models.loading import load as load
    from .norms import BN as BN
    from .norms import BNM as BNM
    from .norms import BRN as BRN
    from .norms import FRN as FRN
    from .norms import GN as GN
    from .norms import GRN as GRN
    from .norms import IN as IN
    from .norms import JSBN as JSBN
    from .norms import LN as LN
    from .norms import LN2D as LN2D
    from .norms import MBN as MBN
    from .norms import NORMS as NORMS
    from .norms import RMS as RMS
    from .norms import RN as RN
    from .norms import RNM as RNM
    from .norms import RNT as RNT
    from .norms import WSGN as WSGN
    from .norms import AlphaBN as AlphaBN
    from .norms import BatchRenorm as BatchRenorm
    from .norms import BNwoT as BNwoT
    from .norms import Derf as Derf
    from .norms import DynamicErf as DynamicErf
    from .norms import DynamicTanh as DynamicTanh
    from .norms import DyT as DyT
    from .norms import EvoNorm as EvoNorm
    from .norms import EvoNormS0 as EvoNormS0
    from .norms import FilterResponseNorm as FilterResponseNorm
    from .norms import GlobalResponseNorm as GlobalResponseNorm
    from .norms import LayerNorm2d as LayerNorm2d
    from .norms import MeanOnly as MeanOnly
    from .norms import MedianNorm as MedianNorm
    from .norms import NoNorm as NoNorm
    from .norms import PowerBN as PowerBN
    from .norms import RMSNorm2d as RMSNorm2d
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
    from .norms.surgery.unmapped import unmapped as unmapped
    from .seeding import generator as generator
    from .threats import L1 as L1
    from .threats import L2 as L2
    from .threats import SPA as SPA
    from .threats import THREATS as THREATS
    from .threats import Flicker as Flicker
    from .threats import Frame as Frame
    from .threats import Linf as Linf
    from .threats import MultAV as MultAV
    from .threats import Normalized as Normalized
    from .threats import Patch as Patch
    from .threats import SparseFrames as SparseFrames
    from .training.loop import fit as fit
    from .training.options import FitOptions as FitOptions
    from .training.recipes import FGSMRS as FGSMRS
    from .training.recipes import NFGSM as NFGSM
    from .training.recipes import RECIPES as RECIPES
    from .training.recipes import TRADES as TRADES
    from .training.recipes import Adversarial as Adversarial
    from .training.recipes import AlignedBN as AlignedBN
    from .training.recipes import Mixed as Mixed
    from .training.recipes import NoFrost as NoFrost
    from .training.recipes import NoFrostStar as NoFrostStar
    from .training.recipes import Routes as Routes
    from .training.recipes import Standard as Standard
    from .training.schedule import Schedule as Schedule
    from .types import Batch as Batch
    from .types import Search as Search

__version__ = "0.1.0"

_EXPORTS = {
    "attacks": "APGD ATTACKS AutoAttack BIM CW Corner DDN DeepFool FAB FGSM FMN LOAP MIM MultiTargeted PGD PatchAttack ROA SigmaZero SparseRS Square Universal strongest_for worst_case",
    "attacks.bpda": "straight_through",
    "auditing.attack_tests": "selftest",
    "auditing.auditor": "audit",
    "auditing.options": "AuditOptions",
    "data": "ArrayFile Cifar10 Cifar100 Cifar101 Cifar10C DATA Digits FashionMnist ImageFolder Mnist MovingDigits Svhn TensorData",
    "diagnostics.run": "diagnose",
    "evaluation.acceleration": "Speed",
    "evaluation.coupling": "Coupling measure_coupling",
    "evaluation.craft": "attack",
    "evaluation.curves": "curve",
    "evaluation.evaluator": "evaluate",
    "evaluation.plan": "AttackPlan",
    "evaluation.store": "Shard",
    "evaluation.verdict": "Verdict",
    "experiments.experiment": "Experiment run",
    "experiments.grid": "Bench run_bench",
    "models": "MODELS NFResNet NFResNet26 NFResNet50 PreActResNet18 ResNet ResNet18 Standardize VGG WideResNet FrameResNet R2Plus1D ResNet3D ViT ConvNeXt",
    "models.abnn": "Adaptive abnn detached fixed_at",
    "models.loading": "load",
    "norms": "AlphaBN BN BNM BNwoT GN IN LN MBN MeanOnly MedianNorm NORMS NoNorm PowerBN RN RNM RNT RobustNorm1d RobustNorm2d RobustNorm3d StatNorm norm_reads routed sites "
    "RMS LN2D DyT Derf GRN WSGN FRN EvoNormS0 BRN JSBN RMSNorm2d LayerNorm2d DynamicTanh DynamicErf GlobalResponseNorm "
    "FilterResponseNorm EvoNorm BatchRenorm",
    "norms.surgery.adaptation": "with_share",
    "norms.surgery.conversion": "convert convert_sync insert recalibrate",
    "norms.surgery.folding": "fold",
    "norms.surgery.trainable": "only",
    "norms.surgery.unmapped": "unmapped",
    "seeding": "generator",
    "threats": "Flicker Frame L1 L2 Linf MultAV Normalized Patch SPA SparseFrames THREATS",
    "training.loop": "fit",
    "training.options": "FitOptions",
    "training.recipes": "Adversarial AlignedBN FGSMRS Mixed NFGSM NoFrost NoFrostStar RECIPES Routes Standard TRADES",
    "training.schedule": "Schedule",
    "types": "Batch Search",
}
_HOME = {name: room for room, names in _EXPORTS.items() for name in names.split()}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    registries = ("ATTACKS", "DATA", "MODELS", "NORMS", "RECIPES", "THREATS") if name[:1].isupper() else ()
    for added in (kind for one in registries for kind in __getattr__(one).values() if kind.__name__ == name):
        return added
    raise AttributeError(f"module 'normwise' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
