"""From a video file to the frames of a clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...utils.errors import one_line

PICTURE, VIDEO = 2**24, 2**37  # pixels of one frame, and of all frames of one video, that are decoded at most
LOST = 0.1  # of the frames that a file promises, the share from which on it counts as damaged
CONTAINERS = "mov,matroska,avi,mpeg,mpegvideo"  # no playlists, which name other files and addresses


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which frames of a video make its clips, and how a frame becomes pixels. Options as in `VideoFolder`."""

    frames: int
    stride: int
    views: int
    size: int
    resize: int
    channels: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of the clips of one video, one after the other: (c, views x frames, h, w)."""
        return self.channels, self.views * self.frames, self.size, self.size

    def places(self, length: int) -> list[int]:
        """The frames, by number, of a video of so many frames: clip after clip, each in the order of time.

        Without a stride, the middles of `frames` equal parts of the video, rounded down, and several clips evenly between
        each other. With one, clips of frames so far apart, evenly over the video; one that is too short starts again.

        >>> Sampling(frames=4, stride=0, views=1, size=8, resize=0, channels=3).places(16)
        [2, 6, 10, 14]
        >>> Sampling(frames=4, stride=2, views=2, size=8, resize=0, channels=3).places(16)
        [2, 4, 6, 8, 6, 8, 10, 12]
        """
        found: list[int] = []
        for view in range(self.views):
            if not self.stride:
                found += [
                    (place * self.views + view) * length // (self.frames * self.views)
                    + length // (2 * self.frames * self.views)
                    for place in range(self.frames)
                ]
                continue
            span = (self.frames - 1) * self.stride + 1
            first = max(0, (length - span) * (2 * view + 1) // (2 * self.views))
            found += [(first + place * self.stride) % length for place in range(self.frames)]
        return found


def decode(file: Path, sampling: Sampling) -> NDArray[np.uint8]:
    """Decode the clips of one video: (c, views x frames, h, w) bytes.

    A frame is made as large as its shorter side needs, and its middle is taken. The file is gone through twice, because what
    it says of its length need not be true. Raises ValueError, one line with the file's name, for whatever is no video, is
    damaged or is too large to decode.
    """
    length = _length(file)
    with _opened(file) as (container, stream):
        places = sampling.places(length)
        wanted, last = set(places), max(places)
        kept: dict[int, NDArray[np.uint8]] = {}
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                kept[number] = _pixels(frame, sampling)
            if number == last:
                break
        return np.stack([kept[place] for place in places], 1)


def _length(file: Path) -> int:
    """Count the frames. Raises ValueError as `decode` does."""
    with _opened(file) as (container, stream):
        length, pixels, times = 0, 0, list[float]()
        for frame in container.decode(stream):
            length, pixels = length + 1, pixels + frame.width * frame.height
            times += [frame.time] if frame.time is not None else []
            if pixels > VIDEO:
                raise ValueError(f"more than {VIDEO:,} pixels in all its frames")
        if not length or length < (1 - LOST) * stream.frames:
            raise ValueError(f"{length} frames of the {stream.frames} that it promises")
        if (
            not stream.frames and len(container.streams) == 1 and len(times) > 1
        ):  # Matroska says how long it is, not of how many frames
            promised, shown = (container.duration or 0) / 1e6, _seconds(times)
            if shown < (1 - LOST) * promised:
                raise ValueError(f"{shown:.1f} s of the {promised:.1f} s that it promises")
        return length


def _seconds(times: Sequence[float]) -> float:
    """How long two frames or more are shown that begin at these times, the last one as long as the others in the mean."""
    return (max(times) - min(times)) * len(times) / (len(times) - 1)


@contextmanager
def _opened(file: Path) -> Iterator[tuple[Any, Any]]:
    """Give the container of a file and its first video stream; whatever goes wrong inside becomes one line."""
    try:
        import av
    except ImportError:
        raise ValueError("videos need PyAV, which is not installed; pip install 'normwise[video]'") from None
    try:
        rules = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
        with av.open(str(file), options=rules) as container:
            if not container.streams.video:
                raise ValueError("no video stream")
            stream = container.streams.video[0]
            width, height = stream.codec_context.width, stream.codec_context.height
            if width * height > PICTURE:
                raise ValueError(f"frames of {width} x {height}, more than {PICTURE:,} pixels")
            stream.codec_context.options = {"max_pixels": str(PICTURE)}
            yield container, stream
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(
            f"{file} must be a video that can be decoded; got {one_line(error)}; replace it, move it away, or leave such files out "
            "with skip_bad"
        ) from None


def _pixels(frame: Any, sampling: Sampling) -> NDArray[np.uint8]:
    """One frame as (c, h, w): made smaller or larger, turned as players turn it, then its middle."""
    size, grey = sampling.size, sampling.channels == 1
    scale = max(sampling.resize, size) / min(frame.width, frame.height)
    width, height = (max(size, round(side * scale)) for side in (frame.width, frame.height))
    if width * height > PICTURE:
        raise ValueError(f"frames of {frame.width} x {frame.height}, whose shorter side is too short")
    whole = frame.to_ndarray(format="gray" if grey else "rgb24", width=width, height=height, interpolation="AREA")
    whole = np.rot90(whole.reshape(height, width, -1), frame.rotation // 90)
    top, left = ((side - size) // 2 for side in whole.shape[:2])
    return whole[top : top + size, left : left + size].transpose(2, 0, 1)
