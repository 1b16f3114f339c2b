"""Diagnoses: where the normalization drifts, which layer flips the decision, how smooth a network is."""

from ..registry import Registry
from .drift import Drift as Drift
from .flips import Flips as Flips
from .gamma import Gamma as Gamma
from .margins import Margins as Margins
from .saturation import Saturation as Saturation
from .slices import Slices as Slices
from .smoothness import Smoothness as Smoothness
from .table import Diagnosis as Diagnosis
from .table import Table as Table

DIAGNOSES = Registry("diagnosis", __name__, vars())
