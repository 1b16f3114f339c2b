"""normwise: does changing how a network normalizes make it adversarially robust, really, and at what cost?"""

__version__ = "0.1.0"
