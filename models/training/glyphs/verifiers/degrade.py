"""Ways a picture of a glyph goes bad, from hardly to badly; what the aesthetic head learns to tell."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

#: Images `[B, 3, H, W]` in [0, 1], severities `[B]` in [0, 1] and a generator to worse images of the same kind.
Degradation = Callable[[Tensor, Tensor, torch.Generator], Tensor]


def _spread(severity: Tensor, least: float, most: float) -> Tensor:
    return (least + (most - least) * severity)[:, None, None, None]


def blur(images: Tensor, severity: Tensor, _: torch.Generator) -> Tensor:
    """A Gaussian blur of standard deviation 0.8 to 2.5 pixels."""
    offsets = torch.arange(-6.0, 7.0)
    sigma = _spread(severity, 0.8, 2.5).flatten()
    kernel = (-(offsets**2) / (2 * sigma[:, None] ** 2)).exp()
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)
    flat = F.pad(images, (6, 6, 6, 6), mode="replicate").flatten(0, 1)[None]
    rows = F.conv2d(flat, kernel[:, None, None, :], groups=len(kernel))
    blurred = F.conv2d(rows, kernel[:, None, :, None], groups=len(kernel))[0].view_as(images)
    return blurred.clamp(0, 1)  # the kernel's sum is 1 up to rounding


def noise(images: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """White noise of standard deviation 0.06 to 0.3 on each channel."""
    grain = torch.randn(images.shape, generator=generator)
    return (images + grain * _spread(severity, 0.06, 0.3)).clamp(0, 1)


def jpeg(images: Tensor, severity: Tensor, _: torch.Generator) -> Tensor:
    """JPEG of quality 20 down to 2."""
    worse = []
    for image, level in zip(images, severity.tolist(), strict=True):
        pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy()
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=round(20 - 18 * level))
        worse.append(torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float() / 255)
    return torch.stack(worse)


def erosion(images: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Holes of 3x3 to 9x9 pixels filled with the paper, about where the ink is: strokes that break off."""
    size, width = len(images), images.shape[-1]
    paper = images[:, :, :1, :1]
    ink = (images - paper).abs().sum(dim=1).flatten(1) + 1e-6
    place = torch.arange(width)
    worse = images
    for _ in range(3):
        centre = torch.multinomial(ink, 1, generator=generator).squeeze(1)
        radius = (1 + 3 * severity).round()
        near_y = (place - centre[:, None] // width).abs() <= radius[:, None]
        near_x = (place - centre[:, None] % width).abs() <= radius[:, None]
        hole = (near_y[:, :, None] & near_x[:, None, :]).view(size, 1, width, width)
        worse = torch.where(hole, paper, worse)
    return worse


def fading(images: Tensor, severity: Tensor, _: torch.Generator) -> Tensor:
    """Contrast brought down to between 0.5 and 0.1 of what it was, about the mean colour."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    return (mean + (images - mean) * _spread(severity, 0.5, 0.1)).clamp(0, 1)


def merging(images: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Another picture of the batch shows through, by 0.2 to 0.5: a shape between two characters."""
    other = images[torch.randperm(len(images), generator=generator)]
    return images.lerp(other, _spread(severity, 0.2, 0.5))


DEGRADATIONS: dict[str, Degradation] = {
    "blur": blur,
    "noise": noise,
    "jpeg": jpeg,
    "erosion": erosion,
    "low contrast": fading,
    "merging": merging,
}
