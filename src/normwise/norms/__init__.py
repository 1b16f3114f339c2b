"""Normalization layers, and the choices that make them."""

from ..registry import Registry
from .adaptive import AdaptiveNorm as AdaptiveNorm
from .batch import BN as BN
from .batch import BNM as BNM
from .batch import AlphaBN as AlphaBN
from .batch import BNwoT as BNwoT
from .batch import MeanOnly as MeanOnly
from .batch import MedianNorm as MedianNorm
from .batch import PowerBN as PowerBN
from .batchrenorm import BRN as BRN
from .batchrenorm import BatchRenorm as BatchRenorm
from .derf import Derf as Derf
from .derf import DynamicErf as DynamicErf
from .dyt import DynamicTanh as DynamicTanh
from .dyt import DyT as DyT
from .evonorm import EvoNorm as EvoNorm
from .evonorm import EvoNormS0 as EvoNormS0
from .free import ChannelAffine as ChannelAffine
from .free import NoNorm as NoNorm
from .frn import FRN as FRN
from .frn import FilterResponseNorm as FilterResponseNorm
from .grn import GRN as GRN
from .grn import GlobalResponseNorm as GlobalResponseNorm
from .jsbn import JSBN as JSBN
from .layer import StatNorm as StatNorm
from .layernorm2d import LN2D as LN2D
from .layernorm2d import LayerNorm2d as LayerNorm2d
from .multibn import MultiBN as MultiBN
from .rmsnorm import RMS as RMS
from .rmsnorm import RMSNorm2d as RMSNorm2d
from .robust import RN as RN
from .robust import RNM as RNM
from .robust import RNT as RNT
from .robust import RobustNorm1d as RobustNorm1d
from .robust import RobustNorm2d as RobustNorm2d
from .robust import RobustNorm3d as RobustNorm3d
from .routed import MBN as MBN
from .routed import Routed as Routed
from .routed import on_route as on_route
from .routed import routed as routed
from .sample import GN as GN
from .sample import IN as IN
from .sample import LN as LN
from .site import axis_of as axis_of
from .site import known as known
from .site import norm_reads as norm_reads
from .site import reads as reads
from .site import sites as sites
from .wsgn import WSGN as WSGN
from .wsgn import StandardizedConv1d as StandardizedConv1d
from .wsgn import StandardizedConv2d as StandardizedConv2d
from .wsgn import StandardizedConv3d as StandardizedConv3d
from .wsgn import complete as complete

NORMS = Registry("norm", __name__, vars())
