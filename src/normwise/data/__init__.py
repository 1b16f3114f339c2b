"""Data sets: frozen dataclasses that give fixed batches of pixels in [0, 1], chosen by name or by path."""

from pathlib import Path

from ..registry import Registry
from . import cache
from .array_checks import Arrays as Arrays
from .array_checks import check_arrays as check_arrays
from .array_checks import need
from .arrays import ArrayFile as ArrayFile
from .cifar import Cifar10 as Cifar10
from .cifar import Cifar100 as Cifar100
from .cifar_shifts import Cifar10C as Cifar10C
from .cifar_shifts import Cifar101 as Cifar101
from .corruptions import CORRUPTIONS as CORRUPTIONS
from .digits import Digits as Digits
from .files import StoredData
from .folder import ImageFolder as ImageFolder
from .idx import FashionMnist as FashionMnist
from .idx import Mnist as Mnist
from .listing import CLIPS, first_kind
from .moving_digits import MovingDigits as MovingDigits
from .svhn import Svhn as Svhn
from .tensors import TensorData as TensorData
from .video.folder import VideoFolder as VideoFolder

DATA = Registry("data set", __name__, vars())


def find(spec: str) -> TensorData:
    """Choose a data set by name, or by path: an .npz file, a folder of a known data set, or a folder of images or
    videos by class.

    Raises ValueError for a name or path that is neither, and for a folder that holds several data sets.

    >>> find("digits").classes
    10
    """
    path = Path(spec).expanduser()
    if spec in set(DATA):
        return DATA[spec]()
    if path.is_dir():
        known = [kind for kind in DATA.values() if issubclass(kind, StoredData) and kind.recognised(path)]
        names = " and ".join(kind.name for kind in known)
        need(len(known) < 2, f"{spec} must hold one data set", names, f"name one, with {spec} as its root")
        if not known and (parts := [kind for kind in DATA.values() if issubclass(kind, StoredData) and kind.begun(path)]):
            return parts[0](root=spec)  # which says what is missing
        if known:
            return known[0](root=spec)
        return VideoFolder(root=spec) if cache.holds("clips", path) or first_kind(path) is CLIPS else ImageFolder(root=spec)
    if path.is_file():
        need(path.suffix == ".npz", f"{spec} must be a folder or an .npz file", "another file", "convert it")
        return ArrayFile(path=spec)
    names = ", ".join(sorted(DATA))
    named = len(path.parts) == 1 and not path.suffix
    need(named, f"data must be at {spec}", "nothing there", f"give a folder, an .npz file, or one of {names}")
    return DATA[spec]()
