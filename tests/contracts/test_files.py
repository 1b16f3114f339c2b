"""Folders and files as people bring them: read to the right pixels, labels and weights, or refused in one line that names the fault."""

from __future__ import annotations

import argparse
import collections
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from normwise.data import find
from normwise.models import checkpoints
from normwise.utils.model_state import digest
from toys import trained

GREY = {"cat": 40, "dog": 120, "owl": 200}  # every picture of a class has its grey, so that labels can be told from pixels


def picture(path: Path, mode: str = "RGB", size: tuple[int, int] = (4, 4)) -> Path:
    """Write one picture, in the grey of the class that its path names."""
    grey = next(level for name, level in GREY.items() if name in str(path).lower())
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, grey).convert(mode).save(path)
    return path


def tree(root: Path, *places: str, suffix: str = "png") -> None:
    """Four pictures of each class in each place: "", "train", ...; a place that names a class gets that class alone."""
    for place in places:
        named = [name for name in GREY if name in place.lower()]
        for folder in [place] if named else [f"{place}/{name}" for name in GREY]:
            for number in range(4):
                picture(root / folder.strip("/") / f"{number}.{suffix}")


Build = Callable[[Path], Any]
READ = ""  # nothing is to be refused


def split(*names: str) -> Build:
    return lambda root: tree(root, *names)


def beside(*names: str, kind: str = "") -> Build:
    """Three classes, and folders beside them: empty, or with one file of another kind."""

    def build(root: Path) -> None:
        tree(root, "")
        for name in names:
            (root / name).mkdir()
            if kind:
                (root / name / f"x.{kind}").write_bytes(b"x")

    return build


def some_tif(root: Path) -> None:
    tree(root, "")
    picture(root / "dog" / "9.tif")


def strays(root: Path) -> None:
    tree(root, "")
    (root / "README.txt").write_text("cats and dogs")
    (root / "cat" / "notes.txt").write_text("a good cat")
    picture(root / "cat.png")


def modes(root: Path) -> None:
    tree(root, "")
    for number, mode in enumerate(("L", "RGBA", "LA", "P", "CMYK")):
        picture(root / "owl" / f"m{number}.{'jpg' if mode == 'CMYK' else 'png'}", mode)


def damaged(content: bytes) -> Build:
    def build(root: Path) -> None:
        tree(root, "")
        (root / "dog" / "1.png").write_bytes(content)

    return build


def truncated(root: Path) -> None:
    tree(root, "")
    path = root / "dog" / "1.png"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:900])


def sizes(root: Path) -> None:
    tree(root, "")
    picture(root / "dog" / "9.png", size=(5, 4))


def sixteen(root: Path) -> None:
    tree(root, "")
    Image.new("I;16", (4, 4)).save(root / "dog" / "9.png")


def links(root: Path) -> None:
    """A class that is a link, a link below a class, and a link that leads back up."""
    tree(root / "away", "")
    (root / "data" / "owl").mkdir(parents=True)
    (root / "data" / "cat").symlink_to(root / "away" / "cat")
    (root / "data" / "dog").symlink_to(root / "away" / "dog", target_is_directory=True)
    (root / "data" / "owl" / "more").symlink_to(root / "away" / "owl")
    (root / "data" / "owl" / "up").symlink_to(root / "data" / "owl")
    (root / "spec").write_text("data")


def lost_link(root: Path) -> None:
    tree(root, "")
    (root / "dog" / "9.png").symlink_to(root / "gone.png")


def names(root: Path) -> None:
    for name in ("a cat", "das dog ✓", "owl's (old)"):
        tree(root, f"{name}")
    (root / "spec").write_text(".")


FOLDERS: dict[str, tuple[Build, str]] = {
    "classes": (split(""), READ),
    "train and test": (split("train", "test"), READ),
    "Train and Test": (split("Train", "Test"), READ),
    "training and testing": (split("training", "testing"), READ),
    "TRAIN and VALID": (split("TRAIN", "VALID"), READ),
    "train and validation": (split("train", "validation"), READ),
    "test without labels, and val": (lambda root: (tree(root, "train", "val"), picture(root / "test" / "cat.png")), READ),
    "two training splits": (split("train", "Training", "test"), "Training and train"),
    "test alone": (split("Test"), "Test"),
    "splits without training": (split("test", "valid"), "test, valid"),
    "a split without classes": (lambda root: (picture(root / "Train" / "cat.png"), tree(root, "test")), "Train"),
    "a class that test alone has": (lambda root: tree(root, "train/cat", "train/dog", "test"), "owl"),
    "a class without images in test": (lambda root: (tree(root, "train", "test/cat"), (root / "test/dog").mkdir()), "dog"),
    "a class without images in train": (lambda root: (tree(root, "train", "test"), (root / "train/ape").mkdir()), "ape"),
    "splits below classes": (split("cat/train", "cat/test", "dog/train", "dog/test"), "cat"),
    "what python and systems leave": (beside("__pycache__", ".ipynb_checkpoints", "__MACOSX", kind="pyc"), READ),
    "an empty class": (beside("ape"), "ape"),
    "a class of tif alone": (beside("ape", kind="tif"), "ape"),
    "a class of text alone": (beside("labels", kind="txt"), "labels"),
    "a class of png and tif": (some_tif, "9.tif"),
    "files beside classes": (strays, READ),
    "one class": (split("cat"), "cat"),
    "mixed modes": (modes, READ),
    "mixed sizes": (sizes, "9.png"),
    "an empty image": (damaged(b""), "1.png"),
    "a page for an image": (damaged(b"<html>no such page</html>"), "1.png"),
    "a truncated image": (truncated, "1.png"),
    "16 bits": (sixteen, "9.png"),
    "links": (links, READ),
    "a link to nowhere": (lost_link, "9.png"),
    "spaces and signs": (names, READ),
    "nothing": (lambda root: None, "no folder"),
}


def refused(error: pytest.ExceptionInfo[ValueError], *words: str) -> None:
    """One line, which holds these words."""
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("layout", FOLDERS)
def test_a_folder_of_images_is_read_to_its_labels_or_refused_by_name(layout: str, tmp_path: Path) -> None:
    build, fault = FOLDERS[layout]
    build(tmp_path)
    inside = tmp_path / "spec"
    root = tmp_path / inside.read_text() if inside.is_file() else tmp_path
    if fault:
        with pytest.raises(ValueError, match=";") as error:
            find(str(root)).test(batch_size=4)[0]
        refused(error, fault, str(tmp_path))
        return
    data = find(str(root))
    called = [next(name for name in GREY if name in one) for one in data.names]
    assert called == list(GREY)
    for x, y in ((data._arrays.train_x, data._arrays.train_y), (data._arrays.test_x, data._arrays.test_y)):
        assert len(y) >= 2
        assert [int(one.float().mean().round()) for one in x] == pytest.approx([GREY[called[int(k)]] for k in y], abs=2)


def test_a_share_for_testing_is_refused_where_there_is_a_test_folder(tmp_path: Path) -> None:
    from normwise.data import ImageFolder

    tree(tmp_path, "train", "test")
    with pytest.raises(ValueError, match="test_fraction") as error:
        ImageFolder(root=str(tmp_path), test_fraction=0.5).test(batch_size=4)
    refused(error, "0.5")


X, Y = np.linspace(0, 1, 6 * 12, dtype=np.float32).reshape(6, 3, 2, 2), np.arange(6) % 3


def npz(**arrays: Any) -> Build:
    return lambda root: np.savez(root / "a.npz", **arrays)


def content(name: str, made: Callable[[], bytes]) -> Build:
    return lambda root: (root / name).write_bytes(made())


def torn_npz(root: Path) -> None:
    np.savez(root / "a.npz", x=X, y=Y)
    (root / "a.npz").write_bytes((root / "a.npz").read_bytes()[:-200])


def npy() -> bytes:
    held = io.BytesIO()
    np.save(held, X)
    return held.getvalue()


def mnist(**other: bytes) -> Build:
    """The four files of MNIST with three rows each, some of them otherwise."""

    def build(root: Path) -> None:
        (root / "mnist").mkdir()
        for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
            rank = int(name[-1])
            body = struct.pack(f">{rank + 1}I", 0x800 + rank, 3, *[28] * (rank - 1)) + bytes(3 * 784 if rank == 3 else 3)
            (root / "mnist" / f"{name}-ubyte").write_bytes(other.get(name.replace("-", "_"), body))

    return build


def cifar(missing: str = "", rows: int = 2) -> Build:
    def build(root: Path) -> None:
        folder = root / "cifar-10-batches-bin"
        folder.mkdir()
        for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
            if name != missing:
                (folder / name).write_bytes(bytes(3073 * rows))
        (folder / "batches.meta.txt").write_text("\n".join("abcdefghij"))

    return build


LABELS_OF_TWO = struct.pack(">2I", 0x801, 2) + bytes(2)
ARRAYS: dict[str, tuple[Build, str, str]] = {
    "x and y": (npz(x=X, y=Y), "a.npz", READ),
    "four arrays": (npz(x_train=X, y_train=Y, x_test=X[:3], y_test=Y[:3]), "a.npz", READ),
    "a key that is missing": (npz(x_train=X, y_train=Y, x_test=X), "a.npz", "no y_test (it has: x_train, y_train, x_test)"),
    "keys of other names": (npz(images=X, labels=Y), "a.npz", "images, labels"),
    "floats up to 255": (npz(x=X * 255, y=Y), "a.npz", "divide by 255"),
    "bytes up to 1": (npz(x=X.round().astype(np.uint8), y=Y), "a.npz", "0..255"),
    "integers of 64 bits": (npz(x=(X * 255).astype(np.int64), y=Y), "a.npz", "torch.int64"),
    "channels last": (npz(x=np.zeros((6, 8, 8, 3), np.uint8), y=Y), "a.npz", "channels last"),
    "labels as floats": (npz(x=X, y=Y.astype(np.float32)), "a.npz", "integers"),
    "one-hot labels": (npz(x=X, y=np.eye(3, dtype=int)[Y]), "a.npz", "(6, 3)"),
    "labels in a column": (npz(x=X, y=Y[:, None]), "a.npz", "(6, 1)"),
    "labels from 1, with names": (npz(x=X, y=Y + 1, names=np.array(["a", "b", "c"])), "a.npz", "1..3"),
    "objects": (npz(x=X, y=np.array([None] * 6)), "a.npz", "Object arrays"),
    "a truncated zip": (torn_npz, "a.npz", "a.npz must be"),
    "an .npy by another name": (content("a.npz", npy), "a.npz", "no zip archive"),
    "an empty file": (content("a.npz", bytes), "a.npz", "a.npz must be"),
    "another kind of file": (content("a.csv", lambda: b"1,2"), "a.csv", "must be a folder or an .npz file"),
    "mnist": (mnist(), "mnist", READ),
    "idx of fewer labels": (mnist(t10k_labels_idx1=LABELS_OF_TWO), "mnist", "have the shape (3,)"),
    "idx that is a page": (mnist(t10k_images_idx3=b"<html>"), "mnist", "t10k-images-idx3-ubyte must be"),
    "idx of labels for images": (mnist(t10k_images_idx3=LABELS_OF_TWO), "mnist", "t10k-images-idx3-ubyte must be"),
    "cifar": (cifar(), "", READ),
    "cifar with a batch that is missing": (cifar("data_batch_3.bin"), "", "lacks data_batch_3.bin"),
    "cifar without rows": (cifar(rows=0), "", "0 bytes"),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_and_known_files_are_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    build, name, fault = ARRAYS[kind]
    build(tmp_path)
    if fault:
        with pytest.raises(ValueError, match=";") as error:
            find(str(tmp_path / name)).test(batch_size=2)[0]
        refused(error, fault)
    else:
        x, y, _ = find(str(tmp_path / name)).test(batch_size=3)[0]
        assert len(x) == len(y) > 1


# Weights: (what is saved, under which name, what is said of it). The network is toys.trained().
STATE = trained(seed=3).state_dict()


def under(prefix: str) -> dict[str, Any]:
    return {f"{prefix}{key}": value for key, value in STATE.items()}


def averaged() -> dict[str, Any]:
    return AveragedModel(trained(seed=3)).state_dict()


def inside(*keys: str, **others: Any) -> dict[str, Any]:
    state: dict[str, Any] = dict(STATE)
    for key in reversed(keys):
        state = {**others, key: state}
    return state


OPTIMIZER = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
FITTING: dict[str, tuple[Any, str]] = {
    "as it is": (STATE, ""),
    "compiled": (under("_orig_mod."), "_orig_mod."),
    "in parallel": (under("module."), "module."),
    "of Lightning": (inside("state_dict", epoch=3) | {"state_dict": under("model.")}, "state_dict"),
    "compiled in parallel": (under("module._orig_mod."), "module."),
    "thrice": (under("_orig_mod.module.model."), "model."),
    "averaged": (averaged(), "module."),
    "averaged, inside": ({"ema": averaged(), "optimizer": OPTIMIZER}, "ema"),
    **{f"inside {key}": (inside(key, optimizer=OPTIMIZER, epoch=9), key) for key in (
        "net", "model", "model_state_dict", "state_dict", "ema", "model_ema", "params", "weights", "network", "generator")},
    "model and ema": ({"model": STATE, "ema": {k: v * 0 for k, v in STATE.items()}}, "ema"),
    "twice inside": (inside("checkpoint", "model"), "checkpoint"),
    "beside a number": ({**STATE, "epoch": 3}, "epoch"),
    "beside numpy numbers": (inside("net", acc=np.float64(93.5), epoch=np.int64(3), curve=np.arange(3.0)), "net"),
    "beside arguments": (inside("net", args=argparse.Namespace(lr=0.1)), "net"),
    "an ordered dict": (collections.OrderedDict(STATE), ""),
    "parameters": ({key: nn.Parameter(value, requires_grad=False) for key, value in STATE.items()}, ""),
    "of half precision": ({key: value.half() if value.is_floating_point() else value for key, value in STATE.items()}, None),
    "beside the attacker's": ({**under("module.model."), "module.normalizer.new_mean": torch.zeros(3)}, "new_mean"),
}  # fmt: skip


def plain(saved: Any) -> bool:
    """Whether safetensors can hold it: tensors alone."""
    return all(isinstance(value, torch.Tensor) for value in saved.values())


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        (kind, file)
        for kind, (saved, _) in FITTING.items()
        for file in ("w.pt", "w.safetensors")
        if file == "w.pt" or plain(saved)
    ],
)
def test_weights_are_found_whatever_is_around_them_and_it_is_said(kind: str, file: str, tmp_path: Path) -> None:
    saved, said = FITTING[kind]
    if file == "w.pt":
        torch.save(saved, tmp_path / file)
    else:
        save_file({key: value.detach().contiguous().clone() for key, value in saved.items()}, tmp_path / file)
    model = trained()
    notes = checkpoints.load_into(model, checkpoints.weights(tmp_path / file))
    if said is None:
        torch.testing.assert_close(model.conv1.weight, STATE["conv1.weight"], rtol=1e-3, atol=1e-3)
    else:
        assert digest(model) == digest(trained(seed=3))
        assert said in " ".join(notes)
        assert bool(notes) == bool(said)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of torch.compile's own
def test_a_compiled_or_parallel_network_takes_plain_weights(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "w.pt")
    for model in (nn.DataParallel(trained()), torch.compile(trained())):
        checkpoints.load_into(model, checkpoints.weights(tmp_path / "w.pt"))
        inner = model.module if isinstance(model, nn.DataParallel) else model._orig_mod
        assert digest(inner) == digest(trained(seed=3))


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("PWNED"),)


def saving(value: Any) -> Build:
    return lambda path: torch.save(value, path)


def torchscript(path: Path) -> None:
    with pytest.warns(DeprecationWarning, match="jit"):
        torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(path)


def exported(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/models/model.json", "{}")
        archive.writestr("w/archive_format", "pt2")


def short(path: Path) -> None:
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:900])


def pushed(saved: bytes) -> Build:
    return lambda path: path.write_bytes(saved)


def other_shape(path: Path) -> None:
    torch.save({**STATE, "conv1.weight": torch.zeros(8, 2, 5, 5)}, path)


NO_WEIGHTS: dict[str, tuple[str, Build, tuple[str, ...]]] = {
    "no file": ("w.pt", lambda path: None, ("no weights file",)),
    "a folder": ("w.pt", lambda path: path.mkdir(), ("no weights file",)),
    "an empty file": ("w.pt", pushed(b""), ("empty",)),
    "garbage": ("w.pt", pushed(bytes(range(256)) * 9), ("not a weights file",)),
    "garbage that begins as a pickle": ("w.pt", pushed(b"\x80\x02}q\x00(no pickle at all"), ("not a weights file",)),
    "garbage as safetensors": ("w.safetensors", pushed(bytes(range(256))), ("not a weights file",)),
    "text": ("w.th", pushed(b"import torch\n"), ("not a weights file",)),
    "a web page": ("w.pt", pushed(b"\n<!DOCTYPE html><html>404</html>"), ("web page",)),
    "a Git LFS pointer": ("w.pt", pushed(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"), ("Git LFS", "git lfs pull")),
    "TorchScript": ("w.pt", torchscript, ("TorchScript",)),
    "an exported program": ("w.pt2", exported, ("exported program",)),
    "ONNX": ("w.onnx", pushed(b"\x08\x07\x12\x07pytorch"), ("ONNX",)),
    "Keras": ("w.h5", pushed(b"\x89HDF\r\n\x1a\n" + bytes(99)), ("HDF5",)),
    "arrays": ("w.npz", lambda path: np.savez(path, w=X), ("numpy",)),
    "a whole pickled network": ("w.pt", saving(nn.Linear(2, 2)), ("whole pickled model", "state dict")),
    "a network within": ("w.pt", saving({"net": trained(), "epoch": 3}), ("whole pickled model", "state dict")),
    "code": ("w.pt", saving({"net": STATE, "x": Evil()}), ("wants to run code", "getattr")),
    "a truncated file": ("w.pt", short, ("truncated",)),
    "a number": ("w.pt", saving(5), ("holds no state dict",)),
    "a list": ("w.pt", saving([torch.zeros(2)]), ("holds no state dict",)),
    "no tensors": ("w.pt", saving({"lr": 0.1, "epoch": 3}), ("holds no state dict", "lr, epoch")),
    "an optimizer alone": ("w.pt", saving({"optimizer": OPTIMIZER}), ("holds no state dict", "optimizer")),
    "another network's": ("w.pt", saving(nn.Linear(2, 2).state_dict()), ("does not fit Small", "weight, bias", "conv1.weight")),
    "a deeper network's": ("w.pt", saving({**STATE, "conv3.weight": torch.zeros(1)}), ("does not fit", "conv3.weight")),
    "less than all": ("w.pt", saving({k: v for k, v in under("module.").items() if "linear" not in k}), ("lacks linear.weight",)),
    "another shape": ("w.pt", other_shape, ("conv1.weight (8, 2, 5, 5) for (8, 2, 3, 3)",)),
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_what_is_no_weights_file_or_another_network_s_is_called_what_it_is(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, build, words = NO_WEIGHTS[kind]
    monkeypatch.chdir(tmp_path)
    build(tmp_path / name)
    with pytest.raises(ValueError, match=";") as error:
        checkpoints.load_into(trained(), checkpoints.weights(tmp_path / name))
    refused(error, name, *words)
    assert not Path("PWNED").exists()
    if kind in ("garbage", "text", "another shape"):
        assert "run code" not in str(error.value)
