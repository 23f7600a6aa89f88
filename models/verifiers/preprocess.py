"""What a pretrained network expects of its input: resize, crop, normalise, as its own publication does it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from sitsearch.models.errors import BadWeights

#: Statistics of OpenAI's CLIP, which BLIP and ImageReward share, and of ImageNet.
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
#: Pillow's numbers of the filters that a tensor can be resized by.
FILTERS = {2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True)
class Transform:
    """Resize, centre crop and normalise, on tensors and differentiable.

    The resize is Pillow's, with its rounding to 8 bits after each of its two passes, which gradients pass through as if
    it were not there. Before normalising, what comes out here differs from Pillow's by at most 1/255, and in few pixels
    at all. (Pillow 13 swaps the passes where the height shrinks more than the width, which changes overshoot at hard
    edges; here rows are always first, as under every Pillow before.)

    Attributes:
        resize: length of the shorter edge, or (height, width) whatever the proportions, or None for as it is.
        crop: (height, width) cut from the centre, or None. What is missing is black.
        mean, std: of each channel.
        interpolation: `bicubic` or `bilinear`.
    """

    resize: int | tuple[int, int] | None
    crop: tuple[int, int] | None
    mean: Sequence[float] = CLIP_MEAN
    std: Sequence[float] = CLIP_STD
    interpolation: str = "bicubic"

    def __call__(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` in [0, 1] to normalised ones `[B, 3, H', W']`."""
        images = self._resize(images)
        if self.crop is not None:
            images = _center_crop(images, *self.crop)
        mean, std = images.new_tensor(self.mean), images.new_tensor(self.std)
        return (images - mean[:, None, None]) / std[:, None, None]

    def _resize(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        if self.resize is None:
            return images
        if isinstance(self.resize, tuple):
            size = self.resize
        else:  # the longer edge is rounded down, as torchvision does
            short = min(height, width)
            size = (self.resize * height // short, self.resize * width // short)
        for between in ((height, size[1]), size):  # rows, then columns
            if between != tuple(images.shape[2:]):
                images = F.interpolate(
                    images, size=between, mode=self.interpolation, align_corners=False, antialias=True
                ).clamp(0, 1)
                images = images + ((images * 255).round() / 255 - images).detach()
        return images

    @classmethod
    def from_open_clip(cls, config: Mapping[str, Any]) -> Transform:
        """From an open_clip model's `visual.preprocess_cfg`.

        Raises:
            BadWeights: it asks for what is not offered here.
        """
        size = config["size"] if isinstance(config["size"], (tuple, list)) else (config["size"], config["size"])
        crop, mode = (int(size[0]), int(size[1])), config["resize_mode"]
        if mode not in ("shortest", "squash") or (mode == "shortest" and crop[0] != crop[1]):
            raise BadWeights(f"open_clip's resize_mode {mode!r} to {crop} is not supported")
        if config["interpolation"] not in FILTERS.values():
            raise BadWeights(f"the interpolation {config['interpolation']!r} is not one of bilinear, bicubic")
        resize = crop if mode == "squash" else crop[0]
        return cls(resize, crop, config["mean"], config["std"], config["interpolation"])

    @classmethod
    def from_transformers(cls, folder: Path) -> Transform:
        """From the `preprocessor_config.json` of a transformers folder.

        Raises:
            BadWeights: it cannot be read, or asks for what is not offered here.
        """
        try:
            config = json.loads((folder / "preprocessor_config.json").read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise BadWeights(f"cannot read the pre-processing of {folder}: {error}") from error
        if config.get("resample", 3) not in FILTERS:
            raise BadWeights(f"the resampling filter {config['resample']} of {folder} is not bilinear or bicubic")
        if abs(config.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6 or not config.get("do_rescale", True):
            raise BadWeights(f"{folder} does not scale pixels to [0, 1]")
        normalize = config.get("do_normalize", True)
        return cls(
            resize=_edges(config["size"]) if config.get("do_resize", True) else None,
            crop=_square(config["crop_size"]) if config.get("do_center_crop", False) else None,
            mean=config["image_mean"] if normalize else (0.0,) * 3,
            std=config["image_std"] if normalize else (1.0,) * 3,
            interpolation=FILTERS[config.get("resample", 3)],
        )


def _edges(size: int | Mapping[str, int]) -> int | tuple[int, int]:
    if isinstance(size, int):
        return size
    return size["shortest_edge"] if "shortest_edge" in size else (size["height"], size["width"])


def _square(size: int | Mapping[str, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size["height"], size["width"])


def _center_crop(images: Tensor, height: int, width: int) -> Tensor:
    missing = max(height - images.shape[2], 0), max(width - images.shape[3], 0)
    if any(missing):
        top, left = missing[0] // 2, missing[1] // 2
        images = F.pad(images, (left, missing[1] - left, top, missing[0] - top))
    top, left = round((images.shape[2] - height) / 2), round((images.shape[3] - width) / 2)
    return images[:, :, top : top + height, left : left + width]
