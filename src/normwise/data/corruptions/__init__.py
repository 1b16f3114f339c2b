"""The fifteen common corruptions of Hendrycks and Dietterich, made here for any images: numpy, scipy and pillow alone.

    x ← CORRUPTIONS["fog"](x, severity, generator=generator)

Source: Hendrycks and Dietterich 2019, arXiv:1903.12261; every number is that of the authors' code (hendrycks/robustness,
`make_cifar_c.py` and `make_imagenet_c.py`). What differs is said with each corruption and in docs/reference/shifts.md.
"""

from .blur import DEFOCUS_BLUR, GLASS_BLUR, MOTION_BLUR, ZOOM_BLUR
from .digital import CONTRAST, ELASTIC_TRANSFORM, JPEG_COMPRESSION, PIXELATE
from .kind import Corruption as Corruption
from .noise import GAUSSIAN_NOISE, IMPULSE_NOISE, SHOT_NOISE
from .rows import corrupted as corrupted
from .weather import BRIGHTNESS, FOG, FROST, SNOW

_IN_ORDER = (  # of the paper
    GAUSSIAN_NOISE,
    SHOT_NOISE,
    IMPULSE_NOISE,
    DEFOCUS_BLUR,
    GLASS_BLUR,
    MOTION_BLUR,
    ZOOM_BLUR,
    SNOW,
    FROST,
    FOG,
    BRIGHTNESS,
    CONTRAST,
    ELASTIC_TRANSFORM,
    PIXELATE,
    JPEG_COMPRESSION,
)
CORRUPTIONS: dict[str, Corruption] = {one.name: one for one in _IN_ORDER}
