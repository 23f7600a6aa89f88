"""The tensor transforms against Pillow's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor
from transformers import BitImageProcessor, CLIPImageProcessor

from sitsearch.models.errors import BadWeights
from sitsearch.models.verifiers.preprocess import CLIP_STD, Transform

#: One 8-bit level, before normalising by the smallest of CLIP's standard deviations.
TOLERANCE = 1.01 / 255 / min(CLIP_STD)


def picture(height: int, width: int) -> tuple[Image.Image, Tensor]:
    """A picture with edges, gradients and noise, and the same as images `[1, 3, H, W]`."""
    drawn = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    drawn[: height // 2] = np.linspace(0, 255, width, dtype=np.uint8)[None, :, None]
    drawn[height // 4 : height // 3, width // 4 : width // 2] = (255, 0, 128)
    return Image.fromarray(drawn, "RGB"), torch.from_numpy(drawn).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize(
    ("size", "mode"),
    [
        ((32, 32), "shortest"),
        ((256, 256), "shortest"),
        ((200, 320), "shortest"),
        ((321, 97), "shortest"),
        ((32, 32), "squash"),
        ((200, 320), "squash"),
    ],
    ids=str,
)
def test_open_clips_transform_is_matched_within_one_level(size: tuple[int, int], mode: str) -> None:
    config = PreprocessCfg(size=224, resize_mode=mode)
    image, images = picture(*size)
    ours, theirs = Transform.from_open_clip(vars(config))(images), image_transform_v2(config, is_train=False)(image)
    assert ours.shape == (1, 3, 224, 224)
    torch.testing.assert_close(ours[0], theirs, atol=TOLERANCE, rtol=0)
    assert float(((ours[0] - theirs).abs() > 1e-5).float().mean()) < 0.02


@pytest.mark.parametrize(
    "processor",
    [
        BitImageProcessor(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}),
        CLIPImageProcessor(),
        BitImageProcessor(do_resize=False, crop_size={"height": 40, "width": 40}, do_normalize=False),
    ],
    ids=["dinov2", "clip", "crop larger than the image"],
)
def test_transformers_preprocessing_is_matched_within_one_level(processor: Any, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    image, images = picture(32, 48)
    theirs = processor(image, return_tensors="pt").pixel_values
    torch.testing.assert_close(Transform.from_transformers(tmp_path)(images), theirs, atol=TOLERANCE, rtol=0)


def test_an_image_of_the_right_size_is_only_normalised_and_gradients_flow() -> None:
    images = torch.rand(1, 3, 32, 32, requires_grad=True)
    same = Transform(32, (32, 32), mean=(0, 0, 0), std=(1, 1, 1))(images)
    torch.testing.assert_close(same, images)
    Transform(224, (224, 224))(images).sum().backward()
    assert images.grad is not None and bool(images.grad.isfinite().all())


def test_what_is_not_offered_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match="resize_mode 'longest'"):
        Transform.from_open_clip(vars(PreprocessCfg(resize_mode="longest")))
    with pytest.raises(BadWeights, match="cannot read the pre-processing"):
        Transform.from_transformers(tmp_path)
    CLIPImageProcessor(resample=1).save_pretrained(tmp_path)
    with pytest.raises(BadWeights, match="not bilinear or bicubic"):
        Transform.from_transformers(tmp_path)
