"""Latents and pixels, through a tiny autoencoder of the real class."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor

from sitsearch.models.autoencoder import LatentImages, downsampling, load_autoencoder
from sitsearch.models.errors import BadWeights, MissingLibrary
from tests.models.tiny_vae import WEIGHTS, save_vae, with_former_names

SCALE = 0.18215


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vae")
    save_vae(path)
    return path


@pytest.fixture(scope="module")
def vae(folder: Path) -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(folder).eval()


def latents(batch: int, side: int = 4) -> Tensor:
    return torch.randn(batch, 4, side, side, generator=torch.Generator().manual_seed(0))


def test_decoding_is_that_of_the_published_sampling_script(folder: Path, vae: AutoencoderKL) -> None:
    x = latents(3)
    with torch.no_grad():  # sample_ddp.py of SiT
        samples = vae.decode(x / SCALE).sample
        expected = torch.clamp(127.5 * samples + 128.0, 0, 255).permute(0, 2, 3, 1).to("cpu", dtype=torch.uint8)
    images = load_autoencoder(folder).decode(x)
    assert images.dtype == torch.uint8 and images.shape == (3, 32, 32, 3)
    # one sample at a time is rounded otherwise than three at once
    assert (images.int() - expected.int()).abs().max() <= 1
    assert images.float().std() > 5


def test_encoding_is_the_mode_of_the_posterior_scaled(folder: Path, vae: AutoencoderKL) -> None:
    images = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    decoder = load_autoencoder(folder)
    found = decoder.encode(images)
    with torch.no_grad():
        posterior = vae.encode(images.permute(0, 3, 1, 2) / 127.5 - 1).latent_dist
    torch.testing.assert_close(found, posterior.mean * SCALE, rtol=1e-4, atol=1e-5)
    assert found.dtype == torch.float32 and torch.equal(found, decoder.encode(images))


def test_a_shift_factor_is_undone_too(folder: Path) -> None:
    plain, shifted = load_autoencoder(folder), load_autoencoder(folder)
    shifted.shift = 0.5
    x = latents(2)
    assert torch.equal(shifted.decode(x - 0.5 * shifted.scale), plain.decode(x))
    images = plain.decode(x)
    torch.testing.assert_close(shifted.encode(images), plain.encode(images) - 0.5 * plain.scale)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_samples_image_does_not_depend_on_its_company(folder: Path, batch: int) -> None:
    decoder, x = load_autoencoder(folder, batch=batch), latents(7)
    together = decoder.decode(x)
    assert len(together) == 7
    for row in (0, 4, 6):
        assert torch.equal(decoder.decode(x[row : row + 1])[0], together[row])
        alone, among = decoder.encode(together[row : row + 1])[0], decoder.encode(together)[row]
        torch.testing.assert_close(alone, among, atol=1e-6, rtol=1e-5)


def test_tiling_changes_only_images_larger_than_the_vaes_own(folder: Path) -> None:
    whole, tiled = load_autoencoder(folder), load_autoencoder(folder, tiling=True)
    assert torch.equal(tiled.decode(latents(1)), whole.decode(latents(1)))
    large = latents(1, side=20)
    assert tiled.decode(large).shape == whole.decode(large).shape == (1, 160, 160, 3)
    assert not torch.equal(tiled.decode(large), whole.decode(large))
    assert (tiled.decode(large).float() - whole.decode(large).float()).abs().mean() < 20
    assert tiled.encode(whole.decode(large)).shape == (1, 4, 20, 20)


def test_the_names_of_the_published_file_are_understood(folder: Path, tmp_path: Path) -> None:
    save_vae(tmp_path)
    with_former_names(tmp_path)
    assert any("mid_block.attentions.0.query" in name for name in load_file(tmp_path / WEIGHTS))
    assert torch.equal(load_autoencoder(tmp_path).decode(latents(2)), load_autoencoder(folder).decode(latents(2)))


def test_the_shrinkage_is_known_without_the_weights(tmp_path: Path) -> None:
    save_vae(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    assert downsampling(tmp_path) == 8


def test_a_folder_that_holds_no_whole_autoencoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match="holds no AutoencoderKL"):
        load_autoencoder(tmp_path)
    save_vae(tmp_path)
    state = load_file(tmp_path / WEIGHTS)
    save_file({name: value for name, value in state.items() if "conv_out" not in name}, tmp_path / WEIGHTS)
    with pytest.raises(BadWeights, match=r"no fit weights for .*conv_out"):
        load_autoencoder(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"torn")
    with pytest.raises(BadWeights, match="cannot load the autoencoder"):
        load_autoencoder(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    torch.save(state, tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(BadWeights, match="cannot load the autoencoder"):
        load_autoencoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "VQModel"}))
    with pytest.raises(BadWeights, match="VQModel, not an AutoencoderKL"):
        load_autoencoder(tmp_path)


def test_a_batch_of_none_is_refused(vae: AutoencoderKL) -> None:
    with pytest.raises(ValueError, match="batch must be at least 1, not 0"):
        LatentImages(vae, batch=0)


def test_a_missing_library_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingLibrary, match="needs diffusers"):
        load_autoencoder(folder)
