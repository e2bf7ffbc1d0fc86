"""Shift, flip and RandAugment by the device, a batch at a time, each image with its own operations.

What is drawn is what ``views`` draws for the loader's workers; the operations are those of ``randaugment.py``: tones to
one step of 255, affine ones by a few where the image has edges, since OpenCV rounds places to 1/32 of a pixel.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from selftrain.images.randaugment import (
    GREY,
    OPERATIONS,
    SIGNED,
    Drawn,
    cutout_box,
    enhancement,
    matrix,
    posterize_bits,
    solarize_added,
    solarize_threshold,
)
from selftrain.images.views import Plan

Tone = Callable[[Tensor, Tensor], Tensor]
Strength = Callable[[float], float]

NAMES = tuple(OPERATIONS)
NONE = -1
PLACED, EACH = 3, 4
"""Columns before the operations (left, top, flip), and of each operation (its place in ``NAMES``, level, x, y)."""


def as_row(plan: Plan, operations: int) -> NDArray[np.float64]:
    """A plan as numbers, for at most so many ``operations``: (``PLACED`` + ``EACH`` · operations,)."""
    row = np.zeros(PLACED + EACH * operations)
    row[PLACED::EACH] = NONE
    row[:PLACED] = *plan.shift, plan.flip
    for place, (name, *numbers) in enumerate(plan.operations):
        row[PLACED + EACH * place : PLACED + EACH * (place + 1)] = NAMES.index(name), *numbers
    return row


def noised(images: Tensor, plans: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 and plans (B, K), which stay on the CPU → (B, H, W, 3) float32, whole numbers from 0 to
    255.
    """
    pixels = images.permute(0, 3, 1, 2).float()
    pixels = _shifted(pixels, plans[:, 0], plans[:, 1])
    flipped = (plans[:, 2] > 0).nonzero()[:, 0].to(images.device)
    pixels[flipped] = pixels[flipped].flip(3)
    for column in range(PLACED, plans.shape[1], EACH):
        operations = [
            None if name == NONE else Drawn(NAMES[int(name)], *numbers)
            for name, *numbers in plans[:, column : column + EACH].tolist()
        ]
        pixels = _operated(pixels, operations)
    return pixels.permute(0, 2, 3, 1)


def _operated(pixels: Tensor, operations: list[Drawn | None]) -> Tensor:
    """One operation of each image: the affine ones in one sampling, the others by groups."""
    height, width = pixels.shape[2:]
    groups: dict[str, list[int]] = {}
    for row, operation in enumerate(operations):
        if operation is not None:
            groups.setdefault("affine" if operation.name in SIGNED else operation.name, []).append(row)
    for name, rows in groups.items():
        here = torch.tensor(rows, device=pixels.device)
        of_group = [operation for row in rows if (operation := operations[row]) is not None]
        if name == "affine":
            matrices = torch.tensor([matrix(operation, width, height) for operation in of_group])
            pixels[here] = _sampled(pixels[here], matrices.to(pixels.device))
        elif name == "cutout":
            for row, operation in zip(rows, of_group, strict=True):
                left, top, right, bottom = cutout_box(operation, width, height)
                pixels[row, :, top : max(top, bottom), left : max(left, right)].fill_(GREY[0])
        elif name != "identity":
            tone, strength = TONES[name]
            strengths = torch.tensor([strength(operation.level) for operation in of_group], dtype=torch.float32)
            pixels[here] = tone(pixels[here], strengths.to(pixels.device).view(-1, 1, 1, 1))
    return pixels


def _shifted(pixels: Tensor, left: Tensor, top: Tensor) -> Tensor:
    """Images moved so that (left, top) comes to the corner, mirrored at the edges; (B, 3, H, W)."""
    if not (left.any() or top.any()):
        return pixels
    height, width = pixels.shape[2:]
    rows = _mirrored(torch.arange(height)[None] + top[:, None].long(), height).to(pixels.device)
    columns = _mirrored(torch.arange(width)[None] + left[:, None].long(), width).to(pixels.device)
    down = pixels.gather(2, rows[:, None, :, None].expand_as(pixels))
    return down.gather(3, columns[:, None, None, :].expand_as(pixels))


def _mirrored(places: Tensor, size: int) -> Tensor:
    return (size - 1 - (size - 1 - places.abs()).abs()).clamp(0, size - 1)


def _sampled(pixels: Tensor, matrices: Tensor) -> Tensor:
    """Bilinear sampling of (B, 3, H, W) by matrices (B, 2, 3); grey where there was nothing."""
    height, width = pixels.shape[2:]
    x = torch.arange(width, device=pixels.device) + 0.5
    y = torch.arange(height, device=pixels.device) + 0.5
    ones = torch.ones(height, width, device=pixels.device)
    places = torch.stack([x.expand(height, width), y[:, None].expand(height, width), ones], dim=-1)  # (H, W, 3)
    sources = torch.einsum("bij,hwj->bhwi", matrices, places)
    grid = 2 * sources / torch.tensor([width, height], device=pixels.device) - 1
    grey = float(GREY[0])
    return functional.grid_sample(pixels - grey, grid, "bilinear", "zeros", align_corners=False).add_(grey).round_()


def _auto_contrast(pixels: Tensor, _: Tensor) -> Tensor:
    low, high = pixels.amin(dim=(2, 3), keepdim=True), pixels.amax(dim=(2, 3), keepdim=True)
    stretched = ((pixels - low) * (255 / (high - low).clamp(min=1))).add_(1e-3).floor_()
    return torch.where(high > low, stretched, pixels)


def _equalize(pixels: Tensor, _: Tensor) -> Tensor:
    batch, height, width = len(pixels), *pixels.shape[2:]
    values = pixels.reshape(batch * 3, -1).long()
    counts = torch.zeros(batch * 3, 256, dtype=torch.long, device=pixels.device)
    counts.scatter_add_(1, values, torch.ones_like(values))
    brightest = counts.gather(1, values.amax(dim=1, keepdim=True))
    step = (height * width - brightest) // 255  # (B·3, 1)
    table = ((step // 2 + counts.cumsum(dim=1) - counts) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=pixels.device))
    return table.gather(1, values).view_as(pixels).float()


def _posterize(pixels: Tensor, bits: Tensor) -> Tensor:
    unit = 2 ** (8 - bits)
    return (pixels / unit).floor() * unit


def _solarize(pixels: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(pixels < threshold, pixels, 255 - pixels)


def _solarize_add(pixels: Tensor, added: Tensor) -> Tensor:
    return torch.where(pixels < 128, (pixels + added).clamp(max=255), pixels)


def _blended(degenerate: Callable[[Tensor], Tensor]) -> Tone:
    """From a degenerate image through the image and beyond."""

    def apply(pixels: Tensor, factor: Tensor) -> Tensor:
        start = degenerate(pixels)
        return (start + factor * (pixels - start)).round().clamp(0, 255)

    return apply


def _luminance(pixels: Tensor) -> Tensor:
    # OpenCV's fixed-point weights; float32 holds these sums exactly.
    weights = torch.tensor([9798.0, 19235.0, 3735.0], device=pixels.device).view(1, 3, 1, 1)
    return (pixels * weights).sum(dim=1, keepdim=True).add(2**14).div(2**15).floor()


def _smooth(pixels: Tensor) -> Tensor:
    kernel = torch.ones(3, 1, 3, 3, device=pixels.device)
    kernel[:, :, 1, 1] = 5
    result = pixels.clone()
    if min(pixels.shape[2:]) > 2:
        result[:, :, 1:-1, 1:-1] = functional.conv2d(pixels, kernel, groups=3).div(13).add(0.5).floor()
    return result


def _enhanced(name: str, degenerate: Callable[[Tensor], Tensor]) -> tuple[Tone, Strength]:
    return _blended(degenerate), partial(enhancement, name)


def _none(level: float) -> float:
    return 0.0


TONES: dict[str, tuple[Tone, Strength]] = {
    "auto_contrast": (_auto_contrast, _none),
    "equalize": (_equalize, _none),
    "invert": (lambda pixels, _: 255 - pixels, _none),
    "posterize": (_posterize, posterize_bits),
    "solarize": (_solarize, solarize_threshold),
    "solarize_add": (_solarize_add, solarize_added),
    "color": _enhanced("color", _luminance),
    "contrast": _enhanced(
        "contrast", lambda pixels: _luminance(pixels).mean(dim=(2, 3), keepdim=True).add(0.5).floor()
    ),
    "brightness": _enhanced("brightness", torch.zeros_like),
    "sharpness": _enhanced("sharpness", _smooth),
}
"""What each does to pixels (B, 3, H, W), and its strength at a level."""
assert {*TONES, *SIGNED, "identity", "cutout"} == set(NAMES)
