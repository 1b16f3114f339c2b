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
from .free import ChannelAffine as ChannelAffine
from .free import NoNorm as NoNorm
from .layer import StatNorm as StatNorm
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
from .site import by_channel as by_channel
from .site import known as known
from .site import norm_reads as norm_reads
from .site import reads as reads
from .site import sites as sites

NORMS = Registry("norm", __name__, vars())
