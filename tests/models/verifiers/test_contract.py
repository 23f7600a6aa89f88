"""What every kind of verifier must hold to; one that is missing here is found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch

from sitsearch.models.catalog import load_generator
from sitsearch.models.condition import Condition
from sitsearch.models.field import conditioned
from sitsearch.models.noise import gaussian
from sitsearch.models.samplers import make_sampler
from sitsearch.models.verifiers.base import Verifier
from sitsearch.models.verifiers.registry import VERIFIER_KINDS, build_verifier
from tests.models.verifiers.server import serving
from tests.models.verifiers.tiny import SERVED, SIZE, TINY

BUILT_IN = [kind for kind in VERIFIER_KINDS if kind not in VERIFIER_KINDS.plugins()]


@pytest.fixture(scope="module", params=BUILT_IN)
def verifier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verifier]:
    kind = request.param
    if kind in SERVED:
        answer, options = SERVED[kind]
        with serving(answer) as server:
            yield build_verifier(kind, options=options(server.url))
    else:
        yield TINY[kind](tmp_path_factory.mktemp(kind))


def asked(count: int) -> list[Condition]:
    words = ("a bold red italic q", "a thin blue seven", "h")
    return [Condition(class_index=index % 3, prompt=words[index % 3]) for index in range(count)]


def batch(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def take(rows: Sequence[Condition], order: list[int]) -> list[Condition]:
    return [rows[index] for index in order]


def test_a_batch_scores_as_its_images_one_by_one_and_in_any_order(verifier: Verifier) -> None:
    images, previews, conditions, order = batch(4), batch(4, seed=1), asked(4), [2, 0, 3, 1]
    together = verifier.score(images, conditions, previews=previews)
    assert together.shape == (4,) and together.dtype == torch.float32 and together.device.type == "cpu"
    apart = [verifier.score(images[i : i + 1], conditions[i : i + 1], previews=previews[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(together, torch.cat(apart), atol=1e-4, rtol=0)
    shuffled = verifier.score(images[order], take(conditions, order), previews=previews[order])
    torch.testing.assert_close(shuffled, together[order], atol=1e-4, rtol=0)


def test_scores_are_finite_and_in_range_on_black_white_and_noise(verifier: Verifier) -> None:
    images = torch.cat([torch.zeros(1, 3, SIZE, SIZE), torch.ones(1, 3, SIZE, SIZE), batch(1)])
    scores = verifier.score(images, asked(3), previews=images.flip(0))
    low, high = verifier.range
    assert bool(scores.isfinite().all()) and bool(((scores >= low - 1e-6) & (scores <= high + 1e-6)).all())


def test_wrong_shapes_types_and_ranges_are_refused_with_what_is_allowed(verifier: Verifier) -> None:
    images, conditions = batch(2), asked(2)
    for bad, message in (
        (images[:, :1], r"\[B, 3, "),
        (images[0], r"\[B, 3, "),
        (images.permute(0, 2, 3, 1), r"\[B, 3, "),
        (images.double(), "float32"),
        ((images * 255).byte(), "float32"),
        (images * 2, r"\[0, 1\]"),
        (images - 1, r"\[0, 1\]"),
        (images * float("nan"), r"\[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            verifier.score(bad, conditions, previews=images)
    with pytest.raises(ValueError, match="1 conditions for 2 images"):
        verifier.score(images, conditions[:1], previews=images)


def test_a_condition_without_what_the_verifier_needs_is_refused(verifier: Verifier) -> None:
    images = batch(1)
    lacking = {"class": Condition(prompt="a red Q"), "prompt": Condition(class_index=0)}
    for need in verifier.needs & set(lacking):
        with pytest.raises(ValueError, match=need):
            verifier.score(images, [lacking[need]], previews=images)
    if "preview" in verifier.needs:
        with pytest.raises(ValueError, match="previews"):
            verifier.score(images, asked(1))
    enough = Condition(
        class_index=0 if "class" in verifier.needs else None, prompt="a red q" if "prompt" in verifier.needs else None
    )
    assert verifier.score(images, [enough], previews=images).shape == (1,)


def bars(horizontal: bool) -> torch.Tensor:
    """A hand-drawn white-on-black capital: H, or I where `horizontal` is not set."""
    image = torch.zeros(3, SIZE, SIZE)
    if horizontal:
        image[:, 2:25, 7:11] = image[:, 2:25, 21:25] = image[:, 12:15, 7:25] = 1
    else:
        image[:, 2:25, 14:18] = 1
    return image


def sampled(label: int) -> torch.Tensor:
    """A sample of the bundled generator, `[3, 32, 32]` in [0, 1]."""
    generator = load_generator("glyphs")
    field, sampler = conditioned(generator, [Condition(class_index=label)]), make_sampler("heun", steps=8)
    state = sampler.init(gaussian(0, 0, 0, generator.shape)[None])
    while not state.done:
        state = sampler.step(state, field(state.query_x, state.query_t))
    return generator.decoder.decode(state.x)[0].permute(2, 0, 1).float() / 255


def better_and_worse(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Two images that a verifier of the kind must order, held against class 7 (H) and the first as preview."""
    if kind in ("fid_oracle", "likelihood", "reconstruction"):
        return sampled(7), batch(1)[0]
    if kind in ("remote", "vlm_judge"):  # the test's endpoints score brightness
        return torch.full((3, SIZE, SIZE), 0.9), torch.full((3, SIZE, SIZE), 0.2)
    if kind == "sharpness":
        return bars(True), torch.nn.functional.avg_pool2d(bars(True), 5, 1, 2)
    return bars(True), bars(False) if kind != "contrast" else bars(True) / 2


#: Kinds whose tiny networks have random weights, which order nothing; tests/models/verifiers/test_agreement.py holds
#: their numbers to their libraries and definitions.
RANDOM = {"aesthetic", "clip_score", "clip_zero_shot", "dinov2", "glyph_auditor", "hpsv2", "image_reward", "inception"}
RANDOM |= {"pickscore"}


def test_higher_is_better(verifier: Verifier, request: pytest.FixtureRequest) -> None:
    kind = request.node.callspec.params["verifier"]
    if kind in RANDOM:
        pytest.skip("random weights order nothing")
    better, worse = better_and_worse(kind)
    wanted = [Condition(class_index=7, prompt="a bright picture")] * 2
    right, wrong = verifier.score(torch.stack([better, worse]), wanted, previews=torch.stack([better, better]))
    assert right > wrong


def test_every_kind_has_a_tiny_one_here() -> None:
    assert set(BUILT_IN) == {*TINY, *SERVED}
