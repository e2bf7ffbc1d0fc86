"""Shift, flip and RandAugment by the device, a batch at a time, each image with its own operations.

What is drawn is what ``views`` draws for the loader's workers; the operations are those of ``randaugment.py``, and
differ from Pillow's by rounding and in how bilinear sampling treats the outermost pixels.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from selftrain.images.randaugment import GREY, OPERATIONS
from selftrain.images.views import Plan

NAMES = tuple(OPERATIONS)
NONE = -1
AFFINE = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
PLACED = 3
"""Columns before the operations: left, top, flip."""


def as_row(plan: Plan, operations: int) -> NDArray[np.float32]:
    """A plan as numbers: left, top, flip, and (operation, level) for each of RandAugment's ``operations``."""
    row = np.zeros(PLACED + 2 * operations, np.float32)
    row[PLACED::2] = NONE
    row[:PLACED] = *plan.shift, plan.flip
    for place, (name, level) in enumerate(plan.operations):
        row[PLACED + 2 * place : PLACED + 2 * place + 2] = NAMES.index(name), level
    return row


def noised(images: Tensor, plans: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 and plans (B, K), which stay on the CPU → (B, H, W, 3) float32, whole numbers from 0 to
    255.
    """
    pixels = images.permute(0, 3, 1, 2).float()
    pixels = _shifted(pixels, plans[:, 0], plans[:, 1])
    flipped = (plans[:, 2] > 0).nonzero()[:, 0].to(images.device)
    pixels[flipped] = pixels[flipped].flip(3)
    for column in range(PLACED, plans.shape[1], 2):
        pixels = _operated(pixels, plans[:, column], plans[:, column + 1])
    return pixels.permute(0, 2, 3, 1)


def _operated(pixels: Tensor, operations: Tensor, levels: Tensor) -> Tensor:
    """One operation of each image: the affine ones in one sampling, the others by groups. The groups are found on the
    CPU.
    """
    bent = torch.isin(operations, torch.tensor([NAMES.index(name) for name in AFFINE], dtype=operations.dtype))
    rows = bent.nonzero()[:, 0]
    if len(rows):
        matrices = torch.stack(
            [_matrix(NAMES[int(operations[row])], float(levels[row]), pixels.shape[3], pixels.shape[2]) for row in rows]
        )
        here = rows.to(pixels.device)
        pixels[here] = _sampled(pixels[here], matrices.to(pixels.device))
    for name, operation in TONES.items():
        rows = (operations == NAMES.index(name)).nonzero()[:, 0]
        if len(rows):
            here = rows.to(pixels.device)
            pixels[here] = operation(pixels[here], levels[rows].to(pixels.device).view(-1, 1, 1, 1))
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


def _matrix(name: str, level: float, width: int, height: int) -> Tensor:
    """Where each pixel of the result comes from, (2, 3), in pixels from the top left corner."""
    matrices = {
        "shear_x": [[1, 0.3 * level, 0], [0, 1, 0]],
        "shear_y": [[1, 0, 0], [0.3 * level, 1, 0]],
        "translate_x": [[1, 0, 0.45 * level * width], [0, 1, 0]],
        "translate_y": [[1, 0, 0], [0, 1, 0.45 * level * height]],
    }
    if name != "rotate":
        return torch.tensor(matrices[name], dtype=torch.float32)
    angle = np.deg2rad(30 * level)
    cos, sin, x, y = np.cos(angle), np.sin(angle), width / 2, height / 2
    return torch.tensor([[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]], dtype=torch.float32)


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
    moved = functional.grid_sample(pixels - grey, grid, "bilinear", "border", align_corners=False) + grey
    outside = (grid.abs() > 1).any(dim=-1)[:, None]
    return torch.where(outside, torch.full_like(moved, grey), moved).add_(0.5).floor_()


def _auto_contrast(pixels: Tensor, level: Tensor) -> Tensor:
    low, high = pixels.amin(dim=(2, 3), keepdim=True), pixels.amax(dim=(2, 3), keepdim=True)
    stretched = ((pixels - low) * (255 / (high - low).clamp(min=1))).add_(1e-3).floor_()
    return torch.where(high > low, stretched, pixels)


def _equalize(pixels: Tensor, level: Tensor) -> Tensor:
    batch, _, height, width = pixels.shape
    values = pixels.reshape(batch * 3, -1).long()
    counts = torch.zeros(batch * 3, 256, dtype=torch.long, device=pixels.device)
    counts.scatter_add_(1, values, torch.ones_like(values))
    brightest = counts.gather(1, values.amax(dim=1, keepdim=True))
    step = (height * width - brightest) // 255  # (B·3, 1)
    table = ((step // 2 + counts.cumsum(dim=1) - counts) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=pixels.device))
    return table.gather(1, values).view_as(pixels).float()


def _posterize(pixels: Tensor, level: Tensor) -> Tensor:
    bits = (4 - (4 * level.abs()).floor()).clamp(min=1)
    unit = 2 ** (8 - bits)
    return (pixels / unit).floor() * unit


def _solarize(pixels: Tensor, level: Tensor) -> Tensor:
    threshold = (256 - (256 * level.abs()).floor()).clamp(min=0)
    return torch.where(pixels < threshold, pixels, 255 - pixels)


def _solarize_add(pixels: Tensor, level: Tensor) -> Tensor:
    added = (110 * level.abs()).floor().clamp(max=128)
    return torch.where(pixels < 128, (pixels + added).clamp(max=255), pixels)


def _blended(degenerate: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Pillow's enhancers: from a degenerate image through the image and beyond."""

    def apply(pixels: Tensor, level: Tensor) -> Tensor:
        start = degenerate(pixels)
        return (start + (1 + 0.9 * level).clamp(min=0) * (pixels - start)).add(1e-3).floor().clamp(0, 255)

    return apply


def _luminance(pixels: Tensor) -> Tensor:
    # Pillow's fixed-point weights, so that no grey is one off.
    weights = torch.tensor([19595, 38470, 7471], device=pixels.device).view(1, 3, 1, 1) / 65536
    return (pixels * weights).sum(dim=1, keepdim=True).add(0.5).floor()


def _smooth(pixels: Tensor) -> Tensor:
    kernel = torch.ones(3, 1, 3, 3, device=pixels.device)
    kernel[:, :, 1, 1] = 5
    result = pixels.clone()
    if min(pixels.shape[2:]) > 2:
        result[:, :, 1:-1, 1:-1] = functional.conv2d(pixels, kernel / 13, groups=3).add(0.5).floor()
    return result


TONES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "invert": lambda pixels, level: 255 - pixels,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": _blended(_luminance),
    "contrast": _blended(lambda pixels: _luminance(pixels).mean(dim=(2, 3), keepdim=True).add(0.5).floor()),
    "brightness": _blended(torch.zeros_like),
    "sharpness": _blended(_smooth),
}
assert set(TONES) | set(AFFINE) == set(NAMES)
