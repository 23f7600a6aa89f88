"""Gradients of verifiers: right, for every kind that says it has them, and the same bits in any company."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sitsearch.models.autoencoder import LatentImages
from sitsearch.models.catalog import load_verifier
from sitsearch.models.condition import Condition
from sitsearch.models.generator import Decoder, Pixels
from sitsearch.models.verifiers.base import Verifier
from sitsearch.models.verifiers.gradients import Gradients
from tests.models.tiny_vae import save_vae
from tests.models.verifiers.tiny import SIZE, TINY

DIFFERENTIABLE = {
    "aesthetic",
    "clip_score",
    "clip_zero_shot",
    "dinov2",
    "glyph_auditor",
    "glyph_classifier",
    "hpsv2",
    "image_reward",
    "pickscore",
}


def asked(count: int) -> list[Condition]:
    words = ("a bold red italic q", "a thin blue seven", "h")
    return [Condition(class_index=index % 3, prompt=words[index % 3]) for index in range(count)]


def states(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * 1.6 - 0.8


@pytest.fixture(scope="module", params=sorted(TINY))
def verifier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Verifier:
    made: Verifier = TINY[request.param](tmp_path_factory.mktemp(request.param))
    assert made.differentiable == (request.param in DIFFERENTIABLE)
    if not made.differentiable:
        pytest.skip("has no gradients")
    return made


def test_the_gradient_is_what_the_score_changes_by(verifier: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "round", lambda self: self)  # gradients pass through the rounding of pixels
    x, conditions = states(2), asked(2)
    gradients = Gradients(verifier, Pixels(), batch=2).of(x, conditions)
    assert gradients.flatten(1).norm(dim=1).min() > 0
    random = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    for direction in (gradients, gradients + gradients.flatten(1).std(dim=1)[:, None, None, None] * random):
        unit = direction / direction.flatten(1).norm(dim=1)[:, None, None, None]
        step = 0.05
        ahead, behind = (
            verifier.differentiable_score(Pixels().render(x + sign * step * unit), conditions) for sign in (1, -1)
        )
        expected = (gradients * unit).flatten(1).sum(dim=1)
        torch.testing.assert_close((ahead - behind) / (2 * step), expected, rtol=0.06, atol=2e-5)


def test_differentiable_scores_are_the_scores(verifier: Verifier) -> None:
    images, conditions = Pixels().render(states(3)), asked(3)
    found, scores = verifier.differentiable_score(images, conditions), verifier.score(images, conditions)
    if getattr(verifier, "clamped", False):
        found = found.clamp(min=0)
    torch.testing.assert_close(found, scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["classifier", "clip_score"])
def test_a_state_gets_the_same_bits_whatever_is_beside_it(name: str) -> None:
    made, x, conditions = Gradients(load_verifier(name), Pixels(), batch=8), states(11), asked(11)
    with torch.inference_mode():
        views = [(index, index % 3) for index in range(11)]
        together = made.of(x, conditions, views)
        for first, last in ((0, 1), (2, 7), (10, 11)):
            part = slice(first, last)
            assert torch.equal(made.of(x[part], conditions[part], views[part]), together[part])


def test_views_are_of_the_shifted_pictures_and_no_views_of_the_picture() -> None:
    made, x, conditions = Gradients(load_verifier("clip_score"), Pixels(), batch=8), states(2), asked(2)
    plain = made.of(x, conditions)
    assert torch.equal(made.of(x, conditions, [(5, 0), (6, 0)]), plain)
    shifted = made.of(x, conditions, [(5, 4), (6, 4)])
    assert not torch.allclose(shifted, plain)
    assert torch.equal(made.of(x, conditions, [(5, 4), (6, 4)]), shifted)
    assert torch.cosine_similarity(shifted.flatten(1), plain.flatten(1)).max() < 0.99


class Broken(Verifier):
    """A score that is no number where an image is bright."""

    padded, differentiable = True, True

    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        return self.differentiable_score(images, conditions).detach()

    def differentiable_score(self, images: Tensor, conditions: Sequence[Condition]) -> Tensor:
        return (0.5 - images.mean(dim=(1, 2, 3))).sqrt()


def test_a_gradient_that_is_no_number_is_zeros() -> None:
    found = Gradients(Broken(), Pixels(), batch=2).of(
        torch.tensor([-0.5, 0.5]).view(2, 1, 1, 1).expand(2, 3, 8, 8), asked(2)
    )
    assert bool(found[0].abs().min() > 0) and not found[1].any()


def test_what_has_no_gradients_says_so() -> None:
    with pytest.raises(ValueError, match="not differentiable"):
        Gradients(load_verifier("similarity"), Pixels(), batch=2)


@pytest.mark.parametrize("latent", [False, True])
def test_rendering_is_decoding_without_rounding(latent: bool, tmp_path: Path) -> None:
    decoder: Decoder = LatentImages(save_vae(tmp_path), batch=2) if latent else Pixels()
    x = torch.randn(3, 4 if latent else 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = decoder.render(x.requires_grad_(True))
    assert images.requires_grad and images.shape[1] == 3 and images.dtype == torch.float32
    decoded = decoder.decode(x.detach()).permute(0, 3, 1, 2).float() / 255
    torch.testing.assert_close(images.detach(), decoded, rtol=0, atol=0.51 / 255)
