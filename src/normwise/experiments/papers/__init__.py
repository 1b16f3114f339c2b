"""The four papers, put to the test: cells, figures, claims."""

from .papers import SYSTEMS as SYSTEMS
from .run import Reproduce as Reproduce
from .run import reproduce as reproduce
