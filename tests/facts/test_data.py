"""Data sets: every layout is read back exactly, every batch is as promised, and bad files are refused in one line."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from scipy.io import savemat

from normwise.data import ArrayFile, Arrays, Cifar10, Cifar100, Digits, FashionMnist, ImageFolder, Mnist, Svhn, find
from normwise.data.augment import random_crop, random_flip
from normwise.data.download import fetch, fetch_archive
from normwise.data.mat import matrices
from normwise.data.tensors import TensorData, stratified
from normwise.registry import plain

FOUR = {"validation_size": 4}


def make(classes: int, *shape: int, seed: int = 0, dtype: type = np.uint8) -> list[np.ndarray]:
    """Random pixels and labels: 20 rows to train, 7 to test."""
    random = np.random.default_rng(seed)
    arrays = []
    for n in (20, 7):
        x = random.integers(0, 256, (n, *shape)).astype(np.uint8)
        y = np.concatenate([[classes - 1], random.integers(0, classes, n - 1)])
        arrays += [x if dtype is np.uint8 else (x / 255).astype(dtype), y]
    return arrays


Made = tuple[TensorData, list[np.ndarray]]


def cifar(root: Path, layout: str, classes: int = 10, coarse: bool = False) -> Made:
    x, y, test_x, test_y = arrays = make(classes, 3, 32, 32)
    folder = root / layout
    folder.mkdir()
    hundred = "100" in layout
    counts = {"coarse": 20, "fine": 100} if hundred else {"": 10}
    names = {kind: [f"class_{i}".encode() for i in range(count)] for kind, count in counts.items()}
    parts = {"train": (x, y), "test": (test_x, test_y)}
    if not hundred:
        parts = {f"data_batch_{i + 1}": (x[4 * i : 4 * i + 4], y[4 * i : 4 * i + 4]) for i in range(5)}
        parts["test_batch"] = (test_x, test_y)
    for part, (pixels, labels) in parts.items():
        others = np.zeros_like(labels)
        kinds = {"": labels} if not hundred else {"coarse_": labels, "fine_": others}
        if hundred and not coarse:
            kinds = {"coarse_": others, "fine_": labels}
        if layout.endswith(("bin", "binary")):
            rows = np.concatenate([*(kind[:, None] for kind in kinds.values()), pixels.reshape(-1, 3072)], axis=1)
            (folder / f"{part}.bin").write_bytes(rows.astype(np.uint8).tobytes())
        else:
            body = {f"{kind}labels".encode(): labels.tolist() for kind, labels in kinds.items()}
            body |= {
                b"data": np.asfortranarray(pixels.reshape(-1, 3072)),
                b"filenames": [b""],
                b"batch_label": b"batch 1",
            }
            (folder / part).write_bytes(pickle.dumps(body, protocol=2))
    if layout.endswith(("bin", "binary")):
        for file in ("fine_label_names.txt", "coarse_label_names.txt") if hundred else ("batches.meta.txt",):
            (folder / file).write_bytes(b"\n".join(names[file.split("_")[0] if hundred else ""]) + b"\n\n")
    else:
        meta = {f"{kind}_label_names".lstrip("_").encode(): value for kind, value in names.items()}
        (folder / ("meta" if hundred else "batches.meta")).write_bytes(pickle.dumps(meta, protocol=2))
    choice = partial(Cifar100, coarse=coarse) if hundred else Cifar10
    return choice(root=str(root), **FOUR), arrays


def idx(root: Path, kind: type[Mnist] = Mnist, pack: bool = False) -> Made:
    x, y, test_x, test_y = arrays = make(10, 1, 28, 28)
    files = zip(("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"), arrays, strict=True)
    for name, array in files:
        array = array.squeeze(1) if array.ndim == 4 else array
        content = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype("u1").tobytes()
        path = root / f"{name}-ubyte{'.gz' if pack else ''}"
        path.write_bytes(gzip.compress(content) if pack else content)
    return kind(root=str(root), **FOUR), [x, y, test_x, test_y]


def svhn(root: Path) -> Made:
    x, y, test_x, test_y = arrays = make(10, 3, 32, 32)
    for name, pixels, labels in (("train", x, y), ("test", test_x, test_y)):
        held = {"X": pixels.transpose(2, 3, 1, 0), "y": np.where(labels == 0, 10, labels)[:, None].astype(np.uint8)}
        savemat(root / f"{name}_32x32.mat", held)
    return Svhn(root=str(root), **FOUR), arrays


def folder(root: Path, test: str = "test", channels: int = 3) -> Made:
    x, y, test_x, test_y = make(3, channels, 6, 5)
    y, test_y = np.sort(y), np.sort(test_y)
    for split, pixels, labels in (("train", x, y), (test, test_x, test_y)):
        for row, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            path = root / split / f"n{label}" / f"{row:02d}.{('png', 'BMP')[row % 2]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0).squeeze()).save(path)
    return ImageFolder(root=str(root), channels=channels, **FOUR), [x, y, test_x, test_y]


def npz(root: Path, dtype: type = np.uint8, shape: tuple[int, ...] = (2, 6, 5)) -> Made:
    arrays = make(5, *shape, dtype=dtype)
    np.savez(root / "some.npz", **dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays, strict=True)))
    return ArrayFile(path=str(root / "some.npz"), **FOUR), arrays


WORLDS: dict[str, Callable[[Path], Made]] = {
    "cifar10 python": partial(cifar, layout="cifar-10-batches-py"),
    "cifar10 binary": partial(cifar, layout="cifar-10-batches-bin"),
    "cifar100 python": partial(cifar, layout="cifar-100-python", classes=100),
    "cifar100 binary": partial(cifar, layout="cifar-100-binary", classes=100),
    "cifar100 python coarse": partial(cifar, layout="cifar-100-python", classes=20, coarse=True),
    "cifar100 binary coarse": partial(cifar, layout="cifar-100-binary", classes=20, coarse=True),
    "mnist": idx,
    "mnist gz": partial(idx, pack=True),
    "svhn": svhn,
    "folder": folder,
    "folder val grey": partial(folder, test="val", channels=1),
    "npz": npz,
    "npz float": partial(npz, dtype=np.float64),
    "npz clips": partial(npz, shape=(3, 4, 6, 5)),
}


def gather(batches: object) -> list[torch.Tensor]:
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]  # type: ignore[call-overload]


def check_contract(data: TensorData) -> None:
    """What holds for every data set."""
    one, two = data.test(batch_size=3), dataclasses.replace(data).test(batch_size=3)
    assert len(one) == len(two) == -(-len(data._arrays.test_y) // 3)
    assert all(torch.equal(a, b) for p, q in zip(one, two, strict=True) for a, b in zip(p, q, strict=True))
    validation = gather(data.validation(batch_size=3))
    assert len(validation[1]) == data.validation_size
    epochs = [list(data.train(batch_size=4, generator=torch.Generator().manual_seed(seed))) for seed in (0, 0, 1)]
    train, again, other = (gather(epoch) for epoch in epochs)
    assert len(epochs[0]) == data.train_batches(4)
    assert torch.equal(train[2], again[2])
    assert not torch.equal(train[2], other[2])
    assert not set(train[2].tolist()) & set(validation[2].tolist())
    for x, y, ids in (train, validation, gather(one)):
        assert x.dtype == torch.float32
        assert 0 <= x.min() <= x.max() <= 1
        assert x.shape[1:] == data.shape
        assert y.dtype == torch.int64
        assert 0 <= y.min() <= y.max() < data.classes
        assert len(ids.unique()) == len(ids)
    x = train[0].double().transpose(0, 1).flatten(1)
    if len(train[1]) == len(data._splits[0].rows):
        torch.testing.assert_close(torch.tensor(data.mean).double(), x.mean(1), rtol=1e-5, atol=0)
        torch.testing.assert_close(torch.tensor(data.std).double(), x.std(1, correction=0), rtol=1e-4, atol=0)
    assert set(plain(data)) == {"name", *(field.name for field in dataclasses.fields(data))}


@pytest.mark.parametrize("world", WORLDS)
def test_each_layout_is_read_back_exactly_and_keeps_the_contract(world: str, tmp_path: Path) -> None:
    data, expected = WORLDS[world](tmp_path)
    for found, array in zip(data._arrays, expected, strict=False):
        assert np.array_equal(found.numpy(), array.astype(np.float32) if array.dtype == np.float64 else array)
    check_contract(data)
    x, y, ids = gather(data.test(batch_size=3))
    pixels = torch.from_numpy(expected[2])
    assert torch.equal(x, (pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float())[ids])
    assert torch.equal(y, torch.from_numpy(expected[3])[ids])
    assert torch.equal(ids, torch.arange(7)) is not world.startswith("folder")  # which shuffles its test rows once


def test_digits_are_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    with np.load(Path(sys.modules["normwise.data"].__file__ or "").with_name("digits.npz")) as held:
        assert np.array_equal(held["x"], datasets.load_digits().images)
        assert np.array_equal(held["y"], datasets.load_digits().target)
    data = Digits()
    check_contract(data)
    test = data.test(batch_size=100)
    assert [len(test), data.train_batches(100), len(data.validation(batch_size=200))] == [5, 11, 1]
    assert all(batch.y.bincount(minlength=10).min() >= 4 for batch in test)
    assert torch.equal(test[0].x * 16, (test[0].x * 16).round())
    images = torch.cat([data._arrays.train_x, data._arrays.test_x])
    assert images.flatten(1).unique(dim=0).shape == torch.from_numpy(datasets.load_digits().data).unique(dim=0).shape


def test_a_path_or_a_name_finds_its_data_set(tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("cifar", "mnist", "my-fashion", "svhn", "folder", "npz", "both")}
    for place in places.values():
        place.mkdir()
    cifar(places["cifar"], "cifar-10-batches-bin")
    idx(places["mnist"])
    idx(places["my-fashion"], pack=True)
    svhn(places["svhn"])
    folder(places["folder"])
    npz(places["npz"])
    found = {name: type(find(str(place))) for name, place in places.items()}
    assert list(found.values())[:5] == [Cifar10, Mnist, FashionMnist, Svhn, ImageFolder]
    assert find(str(places["cifar"] / "cifar-10-batches-bin")).classes == 10
    assert type(find(str(places["npz"] / "some.npz"))) is ArrayFile
    assert find("digits") == Digits()
    (places["both"] / "mnist").symlink_to(places["mnist"])
    (places["both"] / "cifar-10-batches-bin").symlink_to(places["cifar"] / "cifar-10-batches-bin")
    for spec, message in {
        str(places["both"]): "cifar10 and mnist; name one",
        str(tmp_path / "nowhere"): "nothing there",
        str(places["svhn"] / "test_32x32.mat"): "must be a folder or an .npz file",
        "cifr10": "did you mean 'cifar10'",
    }.items():
        with pytest.raises(ValueError, match=message):
            find(spec)


def test_the_environment_says_where_data_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar(tmp_path, "cifar-10-batches-py")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").rename(tmp_path / "away")
    monkeypatch.setenv("NORMWISE_DATA", str(tmp_path))
    refused(Cifar10(), "lacks data_batch_3", "looked in", str(tmp_path), "data/cifar-10-batches-py", "--download", "toronto")
    (tmp_path / "away").rename(tmp_path / "cifar-10-batches-py" / "data_batch_3")
    assert Cifar10(validation_size=1).classes == 10


def refused(data: TensorData, *parts: str) -> None:
    """Reading raises a ValueError of one line in three parts, which holds these words."""
    with pytest.raises(ValueError, match=";") as caught:
        _ = data.test(batch_size=2)[0], data.validation(batch_size=2)
    message = str(caught.value)
    assert "\n" not in message
    assert message.count(";") >= 2
    for part in parts:
        assert part in message


class Command:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.mark}",)


def test_a_pickle_that_wants_to_run_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    data, _ = cifar(tmp_path, "cifar-10-batches-py")
    file, mark = tmp_path / "cifar-10-batches-py" / "data_batch_2", tmp_path / "ran"
    for protocol in range(5):
        file.write_bytes(pickle.dumps({b"data": Command(mark), b"labels": [1]}, protocol=protocol))
        refused(dataclasses.replace(data), "data_batch_2", "wants to run code", "system", "refused")
    for code in (
        b"cbuiltins\neval\n(V1+1\ntR.",
        b"cnumpy\nload\n(Vx\ntR.",
        b"cbuiltins\ngetattr\n(cnumpy\nndarray\nVctypes\ntR.",
    ):
        file.write_bytes(code)
        refused(dataclasses.replace(data), "wants to run code")
    assert not mark.exists()


def test_the_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    data, arrays = cifar(tmp_path, "cifar-100-python", 100)
    for part, x, y in (("train", *arrays[:2]), ("test", *arrays[2:])):
        array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
        state = b"(K\x01(" + b"".join(b"M" + struct.pack("<H", n) for n in (len(x), 3072)) + b"t"
        dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        pixels = b"\x89T" + struct.pack("<I", x.size) + x.tobytes() + b"tb"  # not Fortran's order, the bytes, build
        labels = b"U\x0bfine_labels](" + b"".join(b"K" + bytes([label]) for label in y) + b"e"
        (tmp_path / "cifar-100-python" / part).write_bytes(
            b"\x80\x02}(U\x04data" + array + state + dtype + pixels + labels + b"u."
        )
    assert all(np.array_equal(found, array) for found, array in zip(data._arrays, arrays, strict=False))


@given(arrays(st.sampled_from(["u1", "i2", "f4", "f8"]), array_shapes(max_dims=4, max_side=4)), st.booleans())
def test_a_mat_file_is_read_as_it_was_written(held, packed):
    savemat(file := io.BytesIO(), {"one": held, "y": np.arange(4.0)}, do_compression=packed)
    first, second = matrices(file.getvalue())
    assert (first.name, second.name, second.array().tolist()) == ("one", "y", [[0, 1, 2, 3]])
    np.testing.assert_array_equal(first.array(), np.atleast_2d(held))


@pytest.mark.parametrize("world", ["cifar10 python", "cifar10 binary", "mnist", "mnist gz", "svhn", "folder", "npz"])
@pytest.mark.parametrize("fault", ["truncated", "foreign", "empty"])
def test_a_broken_file_is_named(world: str, fault: str, tmp_path: Path) -> None:
    data, _ = WORLDS[world](tmp_path)
    files = [path for path in sorted(tmp_path.rglob("*")) if path.is_file() and "meta" not in path.name]
    for file in files[:4]:
        held = file.read_bytes()
        file.write_bytes(
            {"truncated": held[: 2 * len(held) // 3], "foreign": b"<html>no such page</html>", "empty": b""}[fault]
        )
        refused(dataclasses.replace(data), file.name)
        if file.name.startswith(("data_batch", "train")):  # nobody asked for them
            assert len(dataclasses.replace(data).test(batch_size=2)[0].y) == 2
        file.write_bytes(held)


IMAGES, LABELS = np.linspace(0, 1, 6 * 12, dtype=np.float32).reshape(6, 3, 2, 2), np.arange(6) % 3


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (IMAGES * 255, LABELS, "0..255; divide by 255"),
        (IMAGES * 2 - 1, LABELS, "-1..1; divide by 255, or undo a scaling"),
        (np.where(IMAGES > 0.9, np.nan, IMAGES), LABELS, "NaN"),
        (np.where(IMAGES > 0.9, np.inf, IMAGES), LABELS, "0..inf"),
        (IMAGES.astype(np.uint8), LABELS, "as uint8"),
        (np.zeros((6, 32, 32, 3), np.uint8), LABELS, "(6, 32, 32, 3), channels last it seems"),
        (IMAGES[:, 0], LABELS, "(n, c, h, w), or (n, c, t, h, w)"),
        (IMAGES.astype(np.int64), LABELS, "got torch.int64"),
        (IMAGES > 0.5, LABELS, "got torch.bool"),
        (IMAGES, LABELS - 1, "lie in 0..1; got -1..1"),
        (IMAGES, LABELS * 10**9, "2000000000"),
        (IMAGES, LABELS / 2, "be integers; got torch.float64"),
        (IMAGES, np.eye(6, dtype=int), "have the shape (6,); got (6, 6)"),
        (IMAGES, LABELS[:5], "got (5,)"),
        (IMAGES[:0], LABELS[:0], "needs test images; got none"),
        (np.array(["a"] * 6), LABELS, "x of <U1"),
        (IMAGES, np.array([Path] * 6), "Object arrays cannot be loaded"),
    ],
)
def test_bad_arrays_are_refused_at_the_door(x: np.ndarray, y: np.ndarray, says: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", x=x, y=y)
    refused(ArrayFile(path=str(tmp_path / "bad.npz")), "bad.npz", says)


def test_labels_outside_the_named_classes_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", x=IMAGES, y=LABELS.astype(">u2"), names=np.array(["cat", "dog"]))
    refused(ArrayFile(path=str(tmp_path / "some.npz")), "lie in 0..1; got 0..2")
    data, (*_, labels) = cifar(tmp_path, "cifar-10-batches-bin")
    with (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").open("r+b") as file:
        file.write(b"\xff")
    refused(data, "cifar10 in", f"lie in 0..9; got {labels[1:].min()}..255")


def test_test_rows_alone_can_be_evaluated_but_not_trained_on(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", x=IMAGES, y=LABELS)
    data = ArrayFile(path=str(tmp_path / "some.npz"))
    assert [len(batch.y) for batch in data.test(batch_size=4)] == [4, 2]
    assert len(data.validation(batch_size=4)) == 0
    for use in (lambda: data.mean, lambda: data.train(batch_size=4, generator=torch.Generator())):
        with pytest.raises(ValueError, match="needs training images for this; got only test images"):
            use()


@pytest.mark.parametrize(
    "options",
    [
        {"validation_size": -1},
        {"train_limit": 0},
        {"test_limit": 0},
        {"test_from": -1},
        {"validation_size": 1297},
        {"validation_size": 10**6},
    ],
)
def test_an_impossible_option_is_one_clear_line(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))) as caught:
        Digits(**options).train_batches(2)
    assert str(caught.value).count(";") == 2


def test_test_images_may_begin_further_on() -> None:
    first, later = (Digits(test_from=start, test_limit=7).test(batch_size=7)[0].ids for start in (0, 7))
    whole = Digits(test_limit=14).test(batch_size=14)[0].ids
    assert torch.equal(torch.cat([first, later]), whole)
    with pytest.raises(ValueError, match="test_from 100000 must leave test images"):
        Digits(test_from=100_000).test(batch_size=7)


def test_validation_images_of_its_own_are_read_and_others_not_taken(tmp_path: Path) -> None:
    """From arrays, and from folders, also as they are kept decoded."""
    arrays = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS}
    np.savez(tmp_path / "own.npz", **arrays, x_val=IMAGES[:4], y_val=LABELS[:4])
    for split, count in (("train", 3), ("test", 2), ("valid", 1)):
        for name in ("a", "b"):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for number in range(count):
                Image.new("L", (8, 8), 10 * count).save(tmp_path / "images" / split / name / f"{number}.png")
    folders = {"root": str(tmp_path / "images"), "channels": 1}
    for kind, options in (
        (ArrayFile, {"path": str(tmp_path / "own.npz")}),
        (ImageFolder, folders),
        (ImageFolder, folders | {"cache": str(tmp_path / "cache")}),
    ):
        data = kind(**options)
        x, y, _ = gather(data.validation(batch_size=3))
        assert torch.equal(x, gather(kind(**options).validation(batch_size=9))[0])
        assert y.tolist() == (LABELS[:4].tolist() if kind is ArrayFile else [0, 1])
        if kind is ImageFolder:
            assert x.mul(255).round().unique().tolist() == [10]
            assert len(gather(data.test(batch_size=9))[1]) == 4
        for use in ("validation", "test"):
            with pytest.raises(ValueError, match="has validation images of its own; got validation_size 1; leave that out"):
                getattr(kind(**options, validation_size=1, validation_from="test"), use)(batch_size=2)


def test_validation_images_may_be_taken_from_those_of_the_test_which_are_then_fewer() -> None:
    whole, data = Digits(validation_size=0), Digits(validation_size=100, validation_from="test", test_limit=400)
    kept, held = gather(data.test(batch_size=100))[2], gather(data.validation(batch_size=100))
    assert sorted([*kept.tolist(), *held[2].tolist()]) == gather(whole.test(batch_size=100))[2].sort().values.tolist()
    assert held[1].bincount().tolist() == pytest.approx([10] * 10, abs=1)
    assert data.train_batches(2) == whole.train_batches(2)
    with pytest.raises(ValueError, match="validation_size 500 must leave test images"):
        Digits(validation_size=500, validation_from="test").test(batch_size=2)


def test_limits_take_every_class_in_its_share_and_no_batch_of_one_trains() -> None:
    data = Digits(validation_size=100, train_limit=201, test_limit=7)
    train = list(data.train(batch_size=50, generator=torch.Generator()))
    assert [len(batch.y) for batch in train] == [50] * 4
    assert [len(batch.y) for batch in data.test(batch_size=5)] == [5, 2]
    assert gather(data.test(batch_size=5))[2].tolist() == list(range(7))
    (validation,) = data.validation(batch_size=100)
    assert validation.y.bincount().tolist() == pytest.approx([10] * 10, abs=1)
    assert not torch.equal(validation.ids, Digits(validation_size=100, split_seed=1).validation(batch_size=100)[0].ids)
    for batch_size in (0, 1):
        with pytest.raises(ValueError, match="batches of 2 images or more"):
            data.train(batch_size=batch_size, generator=torch.Generator())


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0, 1), st.integers(0, 9))
@settings(deadline=None, max_examples=60)
def test_a_stratified_choice_is_fair(labels: list[int], share: float, seed: int) -> None:
    y, size = torch.tensor(labels), round(share * len(labels))
    chosen = stratified(y, size, torch.Generator().manual_seed(seed))
    assert len(chosen.unique()) == len(chosen) == size
    expected = y.bincount(minlength=5) * size / len(y)
    assert (y[chosen].bincount(minlength=5) - expected).abs().max() < 2


@pytest.mark.parametrize("split", [True, False])
def test_a_folder_of_images_that_is_kept_decoded_has_the_same_rows_and_is_decoded_once(split, tmp_path, monkeypatch):
    data = dataclasses.replace(folder(tmp_path)[0], root=str(tmp_path if split else tmp_path / "train"))
    kept = dataclasses.replace(data, cache=str(tmp_path / "kept"))
    for one, other in zip(kept.arrays()[:4], data.arrays()[:4], strict=True):
        assert torch.equal(one, other)
    monkeypatch.setattr("normwise.data.folder.keep", None)  # which decodes
    assert torch.equal(kept.arrays().test_x, data.arrays().test_x)
    assert [one.suffix for one in sorted((tmp_path / "kept").rglob("[!.]*.*"))] == [".json", ".u8"]


def test_a_folder_without_splits_is_cut_once_and_for_all(tmp_path: Path) -> None:
    folder(tmp_path)
    root = str(tmp_path / "train")
    data = ImageFolder(root=root, test_fraction=0.3)
    assert (len(data._arrays.train_y), len(data._arrays.test_y), data.names) == (14, 6, ("n0", "n1", "n2"))
    assert torch.equal(data._arrays.test_x, ImageFolder(root=root, test_fraction=0.3, split_seed=5)._arrays.test_x)
    assert ImageFolder(root=root, size=4).shape == (3, 4, 4)
    image = tmp_path / "train" / "n0" / "wide.png"
    Image.new("RGB", (9, 9)).save(image)
    refused(ImageFolder(root=root), "images of one size", "wide.png", "pass size")
    Image.new("I;16", (5, 6)).save(image)
    refused(ImageFolder(root=root), "wide.png", "8 bits", "I;16")
    image.unlink()
    (tmp_path / "test" / "n7").mkdir()
    refused(ImageFolder(root=str(tmp_path)), "classes that train has; got n7")
    (tmp_path / "train").rename(tmp_path / "val")
    refused(ImageFolder(root=str(tmp_path)), "got test, val")
    refused(ImageFolder(), "pass a folder")


class Server(BaseHTTPRequestHandler):
    """Gives b"hello"; under /short promises more than it sends; under /gone has nothing."""

    def do_GET(self) -> None:
        self.send_response(404 if "gone" in self.path else 200)
        self.send_header("Content-Length", "9" if "short" in self.path else "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


MD5 = "md5:" + hashlib.md5(b"hello").hexdigest()


def test_a_download_is_whole_and_right_or_not_there(address: str, tmp_path: Path) -> None:
    file = tmp_path / "new" / "file"
    for url, checksum, says in (
        (f"{address}/file", "sha256:00", "checksum sha256:2cf2"),
        (f"{address}/short", MD5, "broke off after 5 of 9 bytes"),
        (f"{address}/gone", MD5, "404"),
        ("http://127.0.0.1:9/file", MD5, "refused"),
    ):
        with pytest.raises(ValueError, match=says) as caught:
            fetch(url, checksum, file)
        assert url in str(caught.value)
        assert str(file) in str(caught.value)
        assert not list(file.parent.iterdir())
    assert fetch(f"{address}/file", MD5, file).read_bytes() == b"hello"
    assert fetch(f"{address}/gone", MD5, file).read_bytes() == b"hello"


def test_an_archive_is_unpacked_whole_and_stays_inside(tmp_path: Path) -> None:
    evils = "../../evil", "right/../../evil", "ROOT/evil", "evil"
    for members in (["right/file"], *(["right/file", evil] for evil in evils), ["wrong/file"]):
        archive, place = tmp_path / "some.tar.gz", tmp_path / f"place{len(list(tmp_path.iterdir()))}"
        with tarfile.open(archive, "w:gz") as tar:
            for member in members:
                info = tarfile.TarInfo(member.replace("ROOT", str(tmp_path)))
                info.size = 5
                tar.addfile(info, io.BytesIO(b"hello"))
        checksum = f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"
        if "right/file" in members:  # nothing but the folder is unpacked
            assert (fetch_archive(archive.as_uri(), checksum, place / "right") / "file").read_bytes() == b"hello"
            assert [path.name for path in place.rglob("*")] == ["right", "file"]
        else:
            with pytest.raises(ValueError, match="unpack the archive by hand"):
                fetch_archive(archive.as_uri(), checksum, place / "right")
            assert not list(place.iterdir())
    with pytest.raises(ValueError, match=f"md5:.*by hand to {place}"):
        fetch_archive(archive.as_uri(), "md5:00", place / "right")
    assert not list(tmp_path.rglob("evil"))


def test_a_missing_data_set_is_fetched_when_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin, here = tmp_path / "origin", tmp_path / "here"
    origin.mkdir()
    idx(origin, pack=True)
    cifar(origin, "cifar-10-batches-py")
    with tarfile.open(origin / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(origin / "cifar-10-batches-py", "cifar-10-batches-py")
    sums = {path.as_uri(): f"md5:{hashlib.md5(path.read_bytes()).hexdigest()}" for path in origin.glob("*.gz")}
    monkeypatch.setattr(Mnist, "urls", {url: value for url, value in sums.items() if "idx" in url})
    monkeypatch.setattr(Cifar10, "urls", {url: value for url, value in sums.items() if "cifar" in url})
    for kind in (Mnist, Cifar10):
        refused(kind(root=str(here)), "--download")
        data = kind(root=str(here), download=True, **FOUR)
        assert torch.equal(data._arrays.train_x, kind(root=str(origin), **FOUR)._arrays.train_x)
        assert kind(root=str(here), **FOUR).shape == data.shape
    assert sorted(path.name for path in here.iterdir()) == ["cifar-10-batches-py", "mnist"]


@given(st.integers(0, 3), st.sampled_from([(3, 5, 4), (1, 4, 4), (2, 3, 4, 5)]), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_each_row_is_shifted_and_mirrored_on_its_own(padding: int, shape: tuple[int, ...], seed: int) -> None:
    x = torch.rand(6, *shape) + 1
    generator = torch.Generator().manual_seed(seed)
    cropped, flipped = random_crop(x, padding, generator), random_flip(x, generator)
    height, width = shape[-2:]
    padded = torch.nn.functional.pad(x, (padding,) * 4)
    shifts = [(i, j) for i in range(2 * padding + 1) for j in range(2 * padding + 1)]
    for row in range(6):
        windows = [padded[row, ..., i : i + height, j : j + width] for i, j in shifts]
        assert any(torch.equal(cropped[row], window) for window in windows)
        assert torch.equal(flipped[row], x[row]) or torch.equal(flipped[row], x[row].flip(-1))


def test_augmented_rows_differ_and_keep_their_memory_format() -> None:
    x = torch.rand(64, 3, 8, 8).to(memory_format=torch.channels_last)
    for y in (random_crop(x, 2, torch.Generator()), random_flip(x, torch.Generator())):
        assert y.is_contiguous(memory_format=torch.channels_last)
        changed = (y != x).flatten(1).any(1).float().mean()
        assert 0.3 < changed < 1


def test_the_package_loads_no_heavy_module() -> None:
    heavy = {"scipy", "PIL", "rich", "sklearn", "matplotlib", "pandas", "urllib.request"}
    code = "import sys, torch; old = set(sys.modules); import normwise.data; print(*set(sys.modules) - old)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "normwise.data.cifar" in loaded
    assert not heavy & set(loaded)


def test_arrays_of_one_s_own_make_a_data_set() -> None:
    class Mine(TensorData):
        name = "mine"

        def arrays(self) -> Arrays:
            x = torch.rand(9, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
            return Arrays(x[:6], torch.arange(6) % 2, x[6:], torch.arange(3) % 2, ("a", "b"))

    check_contract(dataclasses.dataclass(frozen=True, kw_only=True)(Mine)(validation_size=2))
