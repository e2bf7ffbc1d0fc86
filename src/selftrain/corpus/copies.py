"""Whether one picture is an altered copy of another: re-encoded, resized, cropped, mirrored, recoloured, with a border.

A copy shows the same picture through an upright frame: a part of it, or more than it. The frame is found first among
likely ones, by small pictures of the brightness' slopes, then exactly, by the enhanced correlation coefficient
(Evangelidis and Psarakis 2008, "Parametric image alignment using enhanced correlation coefficient maximization").
Through the frame, slopes are compared cell by cell. Slopes say nothing of colours, and all but a few cells of a copy
agree. Another shirt before the same cloth agrees along its outline alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from selftrain.corpus.inspect import difference_hash
from selftrain.images.opencv import cv2

SIDE = 128
"""Pixels a side at which pictures are compared; their own proportions do not matter."""
THUMBNAIL, RIM = 24, 3
"""Pixels a side of the small pictures, and how many at each edge are left out: a border would drown the rest."""
MIN_LIKENESS = 0.8
"""Of small pictures, from which on a pair is looked at closely."""
MIN_AGREEMENT = 0.72
"""Of the cells, from which on a pair is a copy."""
QUANTILE = 0.25
"""Which cell has to agree: text or a sticker may cover some, another print covers more."""
CELL = 16
FAINT = 100.0
"""Mean squared slope below which a cell shows nothing."""
MAX_SKEW, MAX_STRETCH = 0.03, 0.15
"""How far a frame may be from upright and from the picture's proportions."""

Frame = tuple[float, float, float, float]
"""(left, top, width, height) of what is seen of a picture, in shares of its sides; may reach beyond it."""
SHOWN = 0.4
"""Share of a frame that has to lie on the picture."""


def _frames() -> tuple[Frame, ...]:
    found: list[Frame] = [(0.0, 0.0, 1.0, 1.0)]
    for share in (0.05, 0.1):
        found += [(x * share, y * share, 1 - share, 1 - share) for x in (0.0, 0.5, 1.0) for y in (0.0, 0.5, 1.0)]
    for border in (0.04, 0.09):
        found.append((-border, -border, 1 + 2 * border, 1 + 2 * border))
    return tuple(found)


FRAMES = _frames()
"""Likely ones: whole, cropped by 5% and 10%, with a border of 4% and 9%."""


@dataclass(frozen=True)
class Picture:
    """A picture that others may be copies of, as every frame shows it, upright and mirrored."""

    grey: tuple[NDArray[np.float32], NDArray[np.float32]]
    """(SIDE, SIDE), upright and mirrored."""
    hashes: NDArray[np.uint64]  # (2 · frames,)
    thumbnails: NDArray[np.float32]  # (2 · frames, features)


def picture_of(image: Image.Image) -> Picture:
    """Everything that candidates are compared with."""
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0)
    sides = (small, ImageOps.mirror(small))
    shown = [_through(side, frame) for side in sides for frame in FRAMES]
    return Picture(
        (_grey(sides[0]), _grey(sides[1])),
        np.array([difference_hash(np.asarray(one)) for one in shown], np.int64).view(np.uint64),
        np.stack([thumbnail(one) for one in shown]),
    )


def _through(image: Image.Image, frame: Frame) -> Image.Image:
    """What a frame shows of a small picture; beyond it is its mean colour."""
    left, top, width, height = (SIDE * share for share in frame)
    if left < 0:
        mean = tuple(int(value) for value in np.asarray(image).mean(axis=(0, 1)))
        image = ImageOps.expand(image, round(-left), fill=mean)
        return image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))


def thumbnail(image: Image.Image) -> NDArray[np.float32]:
    """The slopes of a tiny grey version without its rim, (features,), less their mean, of length one."""
    tiny = np.asarray(image.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR), np.float32)
    down, across = np.gradient(tiny)
    slopes = np.stack([down, across])[:, RIM:-RIM, RIM:-RIM].reshape(-1)
    slopes = slopes - slopes.mean()
    return np.asarray(slopes / max(float(np.linalg.norm(slopes)), 1e-6), np.float32)


def small_grey(image: Image.Image) -> NDArray[np.uint8]:
    """A candidate as ``agreement`` takes it, (SIDE, SIDE)."""
    return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0))


def agreement(picture: Picture, features: NDArray[np.float32], candidate: NDArray[np.uint8]) -> float:
    """How well a candidate (SIDE, SIDE) agrees with a picture through the best frame, from -1 to 1.

    ``features`` is the candidate's thumbnail; -1 where no frame's is like it. Of the cells, the one counts that a
    quarter of them agree less than.
    """
    likeness = picture.thumbnails @ features  # (2 · frames,)
    if likeness.max() < MIN_LIKENESS:
        return -1.0
    seen = _blurred(candidate.astype(np.float32))
    best = -1.0
    for side, grey in enumerate(picture.grey):
        likely = int(likeness[side * len(FRAMES) : (side + 1) * len(FRAMES)].argmax())
        if likeness[side * len(FRAMES) + likely] >= MIN_LIKENESS:
            best = max(best, _cells_agree(grey, seen, _aligned(grey, seen, FRAMES[likely])))
    return best


def _grey(image: Image.Image) -> NDArray[np.float32]:
    return _blurred(np.asarray(image.convert("L"), np.float32))


def _blurred(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), 1.0), np.float32)


def _aligned(grey: NDArray[np.float32], seen: NDArray[np.float32], frame: Frame) -> NDArray[np.float32] | None:
    """The affine map (2, 3) from the candidate's pixels to the picture's; None if it is no upright frame."""
    left, top, width, height = frame
    start = np.array([[width, 0, left * SIDE], [0, height, top * SIDE]], np.float32)
    ends = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-4)
    try:
        everywhere = np.full((SIDE, SIDE), 255, np.uint8)
        _, found = cv2.findTransformECC(seen, grey, start.copy(), cv2.MOTION_AFFINE, ends, everywhere, 5)
    except cv2.error:
        # It does not converge where there is nothing to align.
        found = start
    upright = max(abs(found[0, 1]), abs(found[1, 0])) <= MAX_SKEW
    return np.asarray(found, np.float32) if upright and abs(found[0, 0] / found[1, 1] - 1) <= MAX_STRETCH else None


def _cells_agree(grey: NDArray[np.float32], seen: NDArray[np.float32], frame: NDArray[np.float32] | None) -> float:
    """The correlation of slopes in the cell that ``QUANTILE`` of the cells are below; -1 without enough to compare."""
    if frame is None:
        return -1.0
    outside = -1e4
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    shown = cv2.warpAffine(grey, frame, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=outside)
    inside = cv2.erode((shown > -1).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    if inside.mean() < SHOWN:
        return -1.0
    one, other = _slopes(np.where(shown > -1, shown, 0)), _slopes(seen)
    counted = _sums(inside.astype(np.float32))
    product, first, second = (
        _sums(np.where(inside, (a * b).sum(axis=0), 0)) for a, b in ((one, other), (one, one), (other, other))
    )
    speaks = (counted >= 0.8 * CELL**2) & (np.maximum(first, second) > FAINT * counted)
    if speaks.sum() < 4:
        return -1.0
    cells = product[speaks] / (np.sqrt(first[speaks] * second[speaks]) + 1e-6)
    return float(np.quantile(cells, QUANTILE))


def _slopes(grey: NDArray[np.floating]) -> NDArray[np.float32]:
    """The slopes across and down, (2, SIDE, SIDE)."""
    values = grey.astype(np.float32)
    return np.stack([cv2.Sobel(values, cv2.CV_32F, 1, 0), cv2.Sobel(values, cv2.CV_32F, 0, 1)])


def _sums(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Sums over cells, (SIDE / CELL, SIDE / CELL)."""
    count = SIDE // CELL
    sums: NDArray[np.float64] = values.astype(np.float64).reshape(count, CELL, count, CELL).sum(axis=(1, 3))
    return sums
