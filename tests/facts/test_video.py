"""Videos as data: frames are the right ones, groups stay together, hostile and damaged files end in one line."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
import re
import shutil
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from normwise.__main__ import main
from normwise.data import ImageFolder, VideoFolder, find
from normwise.data.cache import Listing, keep, read, reporting
from normwise.data.video import decoding
from normwise.data.video.decoding import Sampling
from normwise.data.video.splits import folds
from normwise.experiments.experiment import Experiment, build
from normwise.models.loading import load
from normwise.models.views import OverViews, over_views

SMALL = {"frames": 4, "size": 8, "channels": 1}


def film(path: Path, pictures: np.ndarray) -> Path:
    """Write grey pictures (t, h, w) without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = pictures.shape[2], pictures.shape[1], "gray"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray")))
        container.mux(stream.encode())
    return path


def ramp(frames: int, height: int = 8, width: int = 8, first: int = 0) -> np.ndarray:
    """Pictures whose grey is their number."""
    return np.broadcast_to(np.arange(first, first + frames, dtype=np.uint8)[:, None, None], (frames, height, width)).copy()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of 6 videos, of 3 sources with 2 takes each."""
    for label, name in enumerate(("left", "right")):
        for number in range(6):
            film(tmp_path / "data" / name / f"s{number // 2}_{name}{number}.mkv", ramp(16, first=100 * label + 10 * number))
    return tmp_path / "data"


def rows(batches: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))  # type: ignore[call-overload]


def sources(data: VideoFolder, ids: torch.Tensor) -> set[str]:
    return {data._clips[0].files[row].split("/")[1][:2] for row in ids.tolist()}


def test_the_frames_of_a_clip_are_those_that_were_asked_for(root: Path) -> None:
    for options, places in (
        ({}, [2, 6, 10, 14]),
        ({"stride": 2}, [4, 6, 8, 10]),
        ({"stride": 8}, [0, 8, 0, 8]),
        ({"views": 2}, [1, 5, 9, 13, 3, 7, 11, 15]),
    ):
        data = VideoFolder(root=str(root), **SMALL, **options)
        assert data.shape == (1, len(places), 8, 8)
        x, y, ids = rows(data.test(batch_size=3))
        first = 100 * y + 10 * torch.tensor([int(data._clips[0].files[row][-5]) for row in ids])
        assert torch.equal((255 * x).round()[:, 0, :, 0, 0], first[:, None] + torch.tensor(places))


@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 4), st.integers(1, 4))
@settings(deadline=None, max_examples=100)
def test_places_lie_in_the_video_and_clips_in_time(length: int, frames: int, stride: int, views: int) -> None:
    sampling = Sampling(frames=frames, stride=stride, views=views, size=8, resize=0, channels=1)
    clips = np.array(sampling.places(length)).reshape(views, frames)
    assert ((clips >= 0) & (clips < length)).all()
    if not stride or (frames - 1) * stride < length:
        assert (np.diff(clips, axis=1) >= stride).all()
    if not stride and views * frames == length:
        assert sorted(clips.ravel()) == list(range(length))
    middle = clips[:, [0, -1]].mean() if stride and (frames - 1) * stride < length else (length - 1) / 2
    assert abs(middle - (length - 1) / 2) <= 1


def test_a_frame_is_resized_by_its_shorter_side_and_its_middle_is_taken(tmp_path: Path) -> None:
    wide = np.broadcast_to(np.repeat(np.arange(8, dtype=np.uint8), 4), (3, 16, 32)).copy()
    file = film(tmp_path / "wide.mkv", wide)
    shape = {"frames": 3, "stride": 0, "views": 1, "channels": 1}
    assert (
        decoding.decode(file, Sampling(size=16, resize=0, **shape))[0, 0, 0].tolist() == np.repeat([2, 3, 4, 5], 4).tolist()
    )
    assert decoding.decode(file, Sampling(size=4, resize=0, **shape))[0, 0, 0].tolist() == [2, 3, 4, 5]
    assert decoding.decode(file, Sampling(size=2, resize=4, **shape))[0, 0, 0].tolist() == [3, 4]
    assert decoding.decode(file, Sampling(size=4, resize=0, **shape | {"channels": 3})).shape == (3, 3, 4, 4)


@pytest.mark.parametrize("groups", ["(s[0-9])_", "file"])
def test_no_source_is_on_two_sides(root: Path, groups: str) -> None:
    if groups == "file":
        groups = str(root / "groups.json")
        names = {path.stem: path.stem[:2] for path in root.rglob("*.mkv")}
        Path(groups).write_text(json.dumps({**names, "s0_left0": None}))
    tested = []
    for fold in range(3):
        data = VideoFolder(root=str(root), **SMALL, groups=groups, folds=3, fold=fold, validation_size=3)
        train, held, test = (
            rows(part)[2]
            for part in (
                data.train(batch_size=2, generator=torch.Generator()),
                data.validation(batch_size=9),
                data.test(batch_size=9),
            )
        )
        named = [sources(data, ids) for ids in (train, held, test)]
        alone = {0} & set(train.tolist()) if groups.endswith("json") else set()
        assert not named[2] & named[1]
        assert not {data._clips[0].files[row].split("/")[1][:2] for row in set(train.tolist()) - alone} & (
            named[1] | named[2]
        )
        assert len(held) > 1
        assert 0 not in [*held.tolist(), *test.tolist()] or not groups.endswith("json")
        tested += test.tolist()
    assert sorted(tested) == sorted(set(range(12)) - ({0} if groups.endswith("json") else set()))
    given = VideoFolder(root=str(root), **SMALL, groups="(s[0-9])_", folds=2, validation_size=2, validation_from="test")
    left = rows(given.test(batch_size=9))[2].tolist()
    assert [given._clips[0].files[row].split("/")[1][:2] for row in left] == given.test_groups(9)
    with pytest.raises(ValueError, match="validation_size 7 takes whole groups, at most half of the videos"):
        dataclasses.replace(data, validation_size=7).validation(batch_size=9)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6)), min_size=8, max_size=60), st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_folds_keep_groups_whole(pairs: list[tuple[int, int]], seed: int) -> None:
    y, groups = torch.tensor([label for label, _ in pairs]), [f"g{group}" for _, group in pairs]
    count = min(3, len(set(groups)))
    if count < 2:
        return
    found = folds(y, groups, count, torch.Generator().manual_seed(seed))
    assert {len({f for f, other in zip(found.tolist(), groups, strict=True) if other == group}) for group in groups} == {1}
    assert set(found.tolist()) == set(range(count))


def test_a_split_that_divides_a_group_is_refused(root: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.mkv"))
    (lists / "trainlist02.txt").write_text("".join(f"{name.replace('.mkv', '.avi')} 1\n" for name in names[:3]))
    (lists / "testlist02.txt").write_text("".join(f"{name}\n" for name in names[4:8]))
    asked = {"root": str(root), "splits": str(lists), "split": 2, **SMALL}
    data = VideoFolder(**asked)
    assert sorted(rows(data.test(batch_size=9))[2].tolist()) == [4, 5, 6, 7]
    assert sorted(rows(data.train(batch_size=9, generator=torch.Generator()))[2].tolist()) == [0, 1, 2]
    with pytest.raises(
        ValueError, match=r"each group on one side; got group s0 in left/s0_left\d.mkv and right/s0_right\d.mkv"
    ):
        VideoFolder(**asked, groups="(s[0-9])_").test(batch_size=2)
    with pytest.raises(ValueError, match="split files of number 1"):
        VideoFolder(**asked | {"split": 1}).test(batch_size=2)
    (lists / "left_test_split1.txt").write_text(
        "".join(f"{Path(name).name} {flag}\n" for name, flag in zip(names, "112200", strict=False))
    )
    (lists / "right_test_split1.txt").write_text("gone.avi 1\n")
    with pytest.raises(ValueError, match=r"got \['right/gone'\] not there \(1 in all\)"):
        VideoFolder(**asked | {"split": 1}).test(batch_size=2)
    data = VideoFolder(**asked | {"split": 1}, skip_bad=True)
    assert sorted(rows(data.test(batch_size=9))[2].tolist()) == [2, 3]


@pytest.mark.parametrize(
    "named", ["v_{action}_g0{source}_c0{take}", "Some_{action}_film_{source}_{action}_f_cm_np1_ba_med_{take}"]
)
def test_official_splits_know_the_source_videos_by_the_names_of_their_clips(named: str, tmp_path: Path) -> None:
    lists = {"train": [], "test": []}
    for action in ("run", "fall_floor"):
        for source, take in ((source, take) for source in range(6) for take in range(2)):
            name = f"{action}/{named.format(action=action, source=source, take=take)}.mkv"
            film(tmp_path / "data" / name, ramp(4))
            lists["test" if source > 3 else "train"].append(f"{name}\n")
    for side, names in lists.items():
        (tmp_path / f"{side}list01.txt").write_text("".join(names))
    data = VideoFolder(root=str(tmp_path / "data"), splits=str(tmp_path), validation_size=4, **SMALL)
    files, source_of = data._clips[0].files, lambda name: name.split("_med_")[0].split("_c0")[0]
    assert len(set(data.test_groups(8))) == 4
    train = rows(data.train(batch_size=16, generator=torch.Generator()))[2].tolist()
    held = rows(data.validation(batch_size=16))[2].tolist()
    assert (len(held), len(train)) == (4, 12)
    assert not {source_of(files[row]) for row in held} & {source_of(files[row]) for row in train}
    each = VideoFolder(root=str(tmp_path / "data"), splits=str(tmp_path), groups="(.+)", **SMALL)
    assert len(set(each.test_groups(8))) == 8  # groups that are given count
    (tmp_path / "testlist01.txt").write_text("".join(lists["test"][:-1]))
    (tmp_path / "trainlist01.txt").write_text("".join(lists["train"] + lists["test"][-1:]))
    with pytest.raises(ValueError, match="each group on one side; got group fall_floor/"):
        VideoFolder(root=str(tmp_path / "data"), splits=str(tmp_path), **SMALL).test(batch_size=2)


def test_videos_in_a_folder_of_validation_validate_and_no_more(root: Path, tmp_path: Path) -> None:
    for path in sorted(root.rglob("*.mkv")):
        place = tmp_path / "three" / ("train", "Val", "test")[int(path.name[1])] / path.parent.name
        place.mkdir(parents=True, exist_ok=True)
        path.rename(place / path.name)
    data = VideoFolder(root=str(tmp_path / "three"), **SMALL)
    parts = data.train(batch_size=4, generator=torch.Generator()), data.validation(batch_size=4), data.test(batch_size=4)
    found = [[data._clips[0].files[row].split("/")[0] for row in rows(part)[2].tolist()] for part in parts]
    assert found == [["train"] * 4, ["Val"] * 4, ["test"] * 4]


def test_a_bad_clip_is_named_and_left_out_on_request_alone(root: Path) -> None:
    bad = root / "left" / "s1_left2.mkv"
    bad.write_bytes(bad.read_bytes()[:300])
    (root / "left" / "s2_left9.mkv").symlink_to("nowhere.mkv")
    with pytest.raises(ValueError, match=r"left/s1_left2.mkv must be a video that can be decoded; got .*skip_bad$"):
        VideoFolder(root=str(root), **SMALL).test(batch_size=2)
    data = VideoFolder(root=str(root), **SMALL, skip_bad=True)
    with pytest.warns(UserWarning, match="lacks 2 of 13 videos; first .*s1_left2.mkv"):
        assert len(data._arrays.train_y) == 11
    with pytest.raises(
        ValueError, match=r"lacks 2 of 13 videos; got first .*s1_left2.mkv"
    ):  # what was kept is no way around
        VideoFolder(root=str(root), **SMALL).test(batch_size=2)


def test_a_video_that_ends_early_is_damaged_and_a_turned_one_is_read_upright(tmp_path: Path) -> None:
    """Matroska says how long a video is, not how many frames it has. A phone held upright writes a video that lies, and an angle."""
    file = film(tmp_path / "long.mkv", np.random.default_rng(0).integers(0, 255, (40, 32, 32), np.uint8))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    sampling = Sampling(frames=2, stride=0, views=1, size=8, resize=0, channels=1)
    with pytest.raises(ValueError, match=r"got 0\.\d s of the 1\.6 s that it promises"):
        decoding.decode(file, sampling)
    assert decoding.decode(film(tmp_path / "one.mkv", ramp(1)), sampling).shape == (1, 2, 8, 8)  # one picture is a video
    lying = np.zeros((4, 16, 24), np.uint8)
    lying[:, :8] = 255  # white above
    with av.open(str(tmp_path / "turned.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 24, 16, "yuv420p"
        for picture in lying:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray").reformat(format="yuv420p")))
        container.mux(stream.encode())
    content = bytearray((tmp_path / "turned.mp4").read_bytes())
    place = content.find(b"tkhd") + 44  # the matrix of the track
    content[place : place + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 16 * 65536, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(content)
    frame = decoding.decode(tmp_path / "turned.mp4", sampling)[0, 0]
    assert frame[:, 5:].mean() > 240  # white at the right
    assert frame[:, :3].mean() < 15


HLS = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n"


def test_hostile_files_end_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = Sampling(frames=2, stride=0, views=1, size=8, resize=0, channels=1)
    for name, content in (
        ("empty.mp4", b""),
        ("text.avi", b"no video"),
        ("list.mp4", HLS),
        ("other.mkv", b"ffconcat version 1.0\nfile a.mkv\n"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} must be a video .*; got .*; replace it") as caught:
            decoding.decode(tmp_path / name, sampling)
        assert "\n" not in str(caught.value)
    file = film(tmp_path / "some.mkv", ramp(30, 64, 64))
    monkeypatch.setattr(decoding, "PICTURE", 64 * 63)
    with pytest.raises(ValueError, match=r"frames of 64 x 64, more than 4,032 pixels"):
        decoding.decode(file, sampling)
    monkeypatch.setattr(decoding, "PICTURE", 2**24)
    monkeypatch.setattr(decoding, "VIDEO", 64 * 64 * 29)
    with pytest.raises(ValueError, match="pixels in all its frames"):
        decoding.decode(file, sampling)
    thin = film(tmp_path / "thin.mkv", ramp(2, 2, 512))
    monkeypatch.setattr(decoding, "PICTURE", 2**12)
    with pytest.raises(ValueError, match="shorter side is too short"):
        decoding.decode(thin, sampling)


def test_decoded_clips_are_checked_and_can_be_the_data(root: Path) -> None:
    data = VideoFolder(root=str(root), **SMALL)
    expected = rows(data.test(batch_size=9))
    (kept,) = (root / ".normwise").iterdir()
    assert len(pickle.dumps(data)) < 2000  # another process maps the file itself
    packed = find(str(kept))
    assert isinstance(packed, VideoFolder)
    for found, x in zip(rows(packed.test(batch_size=9)), expected, strict=True):
        assert torch.equal(found, x)
    with pytest.raises(ValueError, match=r"of their own frames and size; got frames; leave that out"):
        VideoFolder(root=str(kept), frames=3).test(batch_size=1)
    pixels = bytearray((kept / "clips.u8").read_bytes())
    pixels[5] ^= 1
    (kept / "clips.u8").write_bytes(pixels)
    with pytest.raises(ValueError, match=r"must hold clips .*clips.u8 with another checksum; delete it"):
        VideoFolder(root=str(root), **SMALL).test(batch_size=1)
    (kept / "clips.u8").write_bytes(pixels[1:])
    with pytest.raises(ValueError, match=r"3,071 bytes in clips\.u8, not 3,072"):
        VideoFolder(root=str(kept)).test(batch_size=1)
    film(root / "left" / "s0_left0.mkv", ramp(16, first=7))  # another file is another cache
    assert VideoFolder(root=str(root), **SMALL)._arrays.train_x[0, 0, 0, 0, 0] == 9


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory of a process is told by Linux's /proc")
def test_only_the_rows_in_use_are_in_memory(tmp_path: Path) -> None:
    """64 MB of clips, of which a batch of 2 needs half a megabyte as bytes, and four times that as numbers."""
    n, shape = 128, [1, 8, 256, 256]
    (tmp_path / "clips.u8").write_bytes(b"")
    with (tmp_path / "clips.u8").open("r+b") as file:
        file.truncate(n * 2**19)
    about = {
        "format": "normwise clips 1",
        "sha256": hashlib.sha256(bytes(n * 2**19)).hexdigest(),
        "shape": [n, *shape],
        "skipped": {},
    }
    about |= {
        "names": ["a", "b"],
        "files": [f"{row % 2}/{row}.mp4" for row in range(n)],
        "labels": [row % 2 for row in range(n)],
        "sides": [""] * n,
    }
    (tmp_path / "clips.json").write_text(json.dumps(about))
    before, data = own_memory(), find(str(tmp_path))
    assert max(own_memory() for _ in data.test(batch_size=2)) - before < 2**25


COUNTED = """
import torch, normwise as nw
parts = nw.MovingDigits(test_limit=200).test(batch_size=4)
made, own = [0] * 50, type(parts).made
mean = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(parts[0].x[0].numel(), 4)).eval()
def counted(self, number):
    made[number] += 1
    return own(self, number)
type(parts).made = counted
nw.evaluate(mean, parts, nw.Linf(eps=0.1), [nw.FGSM()], folder="parts")
print(made)
"""


def test_an_evaluation_makes_the_images_of_a_batch_once(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", COUNTED], cwd=tmp_path, capture_output=True, text=True, check=True)
    first, second, *others = json.loads(ended.stdout)  # the type checker of these tests looks at batches too: not there
    assert others == [1] * 48
    assert max(first, second) < 10  # these show how rows are coupled


def own_memory() -> int:
    """Bytes of this process that no file backs."""
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]


def test_a_folder_is_of_images_or_of_videos(root: Path, tmp_path: Path) -> None:
    assert isinstance(find(str(root)), VideoFolder)
    (tmp_path / "none" / "a").mkdir(parents=True)
    assert isinstance(find(str(tmp_path / "none")), ImageFolder)
    for options, says in (
        ({"frames": 0}, "frames from 1 to 4096"),
        ({"frames": 4096, "size": 4096}, "rows of at most 1,073,741,824 bytes"),
        ({"fold": 5}, "a fold from 0 to 4"),
        ({"channels": 2}, "channels of 1 or 3"),
    ):
        with pytest.raises(ValueError, match=says):
            VideoFolder(root=str(root), **options)
    for options, says in (
        ({"groups": "(s[0-9]"}, "groups must be a .json file or a regular expression"),
        ({"groups": "s[0-9]"}, "no part in parentheses"),
        ({"groups": "(q[0-9])"}, r"no match in \['left/s0_left0.mkv'\] \(12 in all\)"),
        ({"groups": "(s[0-9])"}, "5 folds need as many groups; got 3"),
        ({"cache": "/proc/no"}, "cannot write clips in /proc/no"),
    ):
        with pytest.raises(ValueError, match=says):
            VideoFolder(root=str(root), **SMALL, **options).test(batch_size=1)


def test_clips_are_made_once_however_many_want_them_at_a_time(tmp_path: Path) -> None:
    asked, reports, waits = list[str](), list[tuple[str, int, int]](), Event()
    listing = Listing(files=["a", "b", "c"], labels=[0, 1, 0], sides=["", "", ""], names=["x", "y"])

    def clip(file: str) -> np.ndarray:
        asked.append(file)
        assert waits.wait(5)  # until the other one has found that somebody is at it
        return np.full((1, 2, 3, 3), len(asked), np.uint8)

    def report(text: str, done: int, total: int) -> None:
        reports.append((text, done, total))
        if text.startswith("another process"):
            waits.set()

    def kept(number: int) -> torch.Tensor:
        with reporting(report):
            keep("clips", tmp_path / "clips", listing, (1, 2, 3, 3), clip)
        return read("clips", tmp_path / "clips")[1]

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(kept, range(2))
    assert torch.equal(first, second)
    assert asked == ["a", "b", "c"]
    assert [one for one in reports if one[0] == "decoding clips"] == [("decoding clips", done, 3) for done in range(3)]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"split": 2}, "split is the number of an official split; got 2"),
        ({"resize": 4}, "needs a resize of 8, its size, or more; got 4"),
        ({"fold": 1}, "say who tests, so that no fold does; got fold; leave that out"),
    ],
)
def test_what_would_not_be_used_is_refused(wrong: dict[str, int], why: str, root: Path, tmp_path: Path) -> None:
    for side in ("train", "test"):
        shutil.copytree(root, tmp_path / side, ignore=shutil.ignore_patterns(".normwise"))
    with pytest.raises(ValueError, match=why):
        VideoFolder(root=str(tmp_path), **{**SMALL, **wrong}).test(batch_size=1)


def test_a_run_answers_several_clips_of_each_video_by_their_mean(root: Path, tmp_path: Path) -> None:
    run, few = tmp_path / "run", ["--data.frames", "4", "--data.size", "8", "--data.channels", "1", "--batch_size", "2"]
    words = ["--model", "resnet3d", "--model.depth", "10", "--model.width", "4", "--schedule.epochs", "1"]
    words += [
        *few,
        "--attacks",
        "[{name: pgd, steps: 2}]",
        "--strongest",
        "[]",
        "--data.validation_size",
        "2",
        "--schedule.batch_size",
        "4",
    ]
    assert main(["train", "--data", str(root), *words, "--out", str(run)]) == 0
    assert main(["evaluate", str(run), "--data.views", "3", "--out", str(tmp_path / "views")]) == 0
    assert json.loads((tmp_path / "views" / "result.json").read_text())["evaluation"]["clean_accuracy"]["unit"] == "rows"
    grouped = ["--data.groups", "(s[0-9])_", "--data.folds", "3", "--eps_curve", "[1/255]", "--columns.kinds", "[l2]"]
    assert main(["evaluate", str(run), *grouped, "--out", str(tmp_path / "grouped")]) == 0
    result = json.loads((tmp_path / "grouped" / "result.json").read_text())
    found, several = result["evaluation"], result["several"]
    shares = [found["clean_accuracy"], found["robust_accuracy"], found["curves"][0]["scores"][0]]
    shares += [several["union"], several["evaluations"]["l2"]["robust_accuracy"]]
    assert [(one["n"], one["unit"], one["rows"]) for one in shares] == 5 * [(1, "groups", 4)]
    batch = VideoFolder(root=str(root), **SMALL, views=3).test(batch_size=2)[0]
    clip, video = load(run).model, load(run, views=3).model
    parts = torch.stack([clip(part) for part in batch.x.split(4, 2)])
    torch.testing.assert_close(video(batch.x), parts.mean(0))
    e = Experiment(data=VideoFolder(root=str(root), **SMALL, views=3), start=str(run), norm=None)
    assert isinstance(build(e), OverViews)
    further = ["--start", str(run), "--data.views", "3", "--schedule.epochs", "1", "--schedule.batch_size", "4"]
    assert (
        main(
            ["train", "--data", str(root), *few, *further, "--data.validation_size", "2", "--out", str(tmp_path / "further")]
        )
        == 0
    )
    trained = json.loads((tmp_path / "further/result.json").read_text())["evaluation"]
    assert main(["evaluate", str(tmp_path / "further"), "--out", str(tmp_path / "again")]) == 0
    again = json.loads((tmp_path / "again/result.json").read_text())["evaluation"]
    assert again["clean_accuracy"] == trained["clean_accuracy"]
    found = json.loads((tmp_path / "views/result.json").read_text())["evaluation"]
    rows = VideoFolder(root=str(root), **SMALL, views=3).test(batch_size=2)
    right = sum(int((video(one.x).argmax(1) == one.y).sum()) for one in rows)
    assert found["clean_accuracy"]["value"] == pytest.approx(right / found["n"])
    assert found["data"]["views"] == 3
    with pytest.raises(ValueError, match=r"the network answers 3 clips of each video, and data.views is 2"):
        over_views(video, 2)
