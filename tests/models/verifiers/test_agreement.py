"""The numbers are those of the library or the definition that each verifier takes its name from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from transformers import AutoModel, AutoProcessor, BitImageProcessor, Dinov2ForImageClassification

from sitsearch.models.checksums import sha256_of
from sitsearch.models.condition import Condition
from sitsearch.models.errors import BadWeights
from sitsearch.models.verifiers.aesthetic import aesthetic_head
from sitsearch.models.verifiers.class_score import class_score
from sitsearch.models.verifiers.clip import ClipScore, ClipZeroShot
from sitsearch.models.verifiers.dinov2 import Dinov2Classifier
from sitsearch.models.verifiers.fid_oracle import FidOracle
from sitsearch.models.verifiers.frechet import FrechetReference
from sitsearch.models.verifiers.hpsv2 import HPSv2
from sitsearch.models.verifiers.image_reward import MEAN, STD, ImageReward
from sitsearch.models.verifiers.inception import InceptionV3
from sitsearch.models.verifiers.inception_oracle import InceptionOracle, inception_score
from sitsearch.models.verifiers.pickscore import PickScore
from sitsearch.models.verifiers.statistics import Contrast, Sharpness
from tests.models.verifiers import tiny

PROMPTS = ["a bold red italic q", "thin blue seven", "h"]


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """8-bit pictures at the networks' own size, so that no resize stands between ours and the library's numbers."""
    drawn = np.random.default_rng(0).integers(0, 256, (3, tiny.SIZE, tiny.SIZE, 3), dtype=np.uint8)
    return [Image.fromarray(each, "RGB") for each in drawn]


@pytest.fixture(scope="module")
def images(pictures: list[Image.Image]) -> Tensor:
    return torch.stack([torch.from_numpy(np.array(each)) for each in pictures]).permute(0, 3, 1, 2).float() / 255


def by_prompt() -> list[Condition]:
    return [Condition(prompt=prompt) for prompt in PROMPTS]


def by_class() -> list[Condition]:
    return [Condition(class_index=index) for index in range(3)]


# --- classes -----------------------------------------------------------------------------------------------------


def test_modes_of_a_class_score_follow_their_definitions() -> None:
    logits, classes = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]]), torch.tensor([0, 2])
    p = logits.softmax(1)
    close = torch.testing.assert_close
    close(class_score(logits, classes, "probability"), torch.stack([p[0, 0], p[1, 2]]))
    close(class_score(logits, classes, "log_probability"), torch.stack([p[0, 0], p[1, 2]]).log())
    close(class_score(logits, classes, "logit"), torch.tensor([2.0, 1.0]))
    close(class_score(logits, classes, "margin"), torch.tensor([1.5, -2.0]))


# --- open_clip ---------------------------------------------------------------------------------------------------


def test_clip_score_is_the_clamped_weighted_cosine_of_open_clip(
    tmp_path: Path, pictures: list[Image.Image], images: Tensor
) -> None:
    folder = tiny.open_clip_folder(tmp_path / "clip")
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(PROMPTS)
    with torch.no_grad():
        seen, read, scale = model.eval()(torch.stack([preprocess(each) for each in pictures]), tokens)
    cosines = (seen * read).sum(1)
    signed = ClipScore(folder, clamped=False, weight=1.0)
    torch.testing.assert_close(signed.score(images, by_prompt()), cosines, atol=1e-5, rtol=0)
    assert signed.logit_scale == pytest.approx(float(scale))
    torch.testing.assert_close(
        ClipScore(folder).score(images, by_prompt()), 2.5 * cosines.clamp(min=0), atol=1e-5, rtol=0
    )


def test_zero_shot_logits_are_those_of_open_clips_own_classifier(
    tmp_path: Path, pictures: list[Image.Image], images: Tensor
) -> None:
    folder, templates = tiny.open_clip_folder(tmp_path / "clip"), ("a photo of a {}.", "the {}")
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    with torch.no_grad():
        model.eval()
        weights = []
        for name in tiny.NAMES:  # CLIP's definition, written out: normalise, average, normalise
            read = model.encode_text(tokenizer([template.format(name) for template in templates]))
            weights.append(F.normalize(F.normalize(read, dim=1).mean(0), dim=0))
        seen = model.encode_image(torch.stack([preprocess(each) for each in pictures]), normalize=True)
        logits = model.logit_scale.exp() * seen @ torch.stack(weights).T
    ours = ClipZeroShot(folder, classes=tiny.NAMES, templates=templates)
    torch.testing.assert_close(ours.logits(images), logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(ours.score(images, by_class()), logits.log_softmax(1).diagonal(), atol=1e-4, rtol=0)


def test_hpsv2_is_the_cosine_of_the_checkpoints_features(
    tmp_path: Path, pictures: list[Image.Image], images: Tensor
) -> None:
    path, architecture = tiny.hpsv2_checkpoint(tmp_path)
    model, _, preprocess = open_clip.create_model_and_transforms(architecture, output_dict=True)
    model.load_state_dict(torch.load(path)["state_dict"])
    tokens = open_clip.get_tokenizer(architecture)(PROMPTS)
    with torch.no_grad():  # hpsv2/img_score.py
        outputs = model.eval()(torch.stack([preprocess(each) for each in pictures]), tokens)
        expected = torch.diagonal(outputs["image_features"] @ outputs["text_features"].T)
    ours = HPSv2(path, architecture=architecture, sha256=sha256_of(path))
    torch.testing.assert_close(ours.score(images, by_prompt()), expected, atol=1e-5, rtol=0)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    path, architecture = tiny.hpsv2_checkpoint(tmp_path)
    with pytest.raises(BadWeights, match=r"missing .*ln_final"):
        HPSv2({"logit_scale": torch.zeros(())}, architecture=architecture)
    with pytest.raises(BadWeights, match="open_clip has no model"):
        HPSv2(path, architecture="ViT-nope", sha256=sha256_of(path))


# --- transformers ------------------------------------------------------------------------------------------------


def test_dinov2_logits_are_those_of_transformers(tmp_path: Path, pictures: list[Image.Image], images: Tensor) -> None:
    folder = tiny.dinov2_folder(tmp_path / "dino")
    processor, model = BitImageProcessor.from_pretrained(folder), Dinov2ForImageClassification.from_pretrained(folder)
    with torch.no_grad():
        logits = model.eval()(**processor(pictures, return_tensors="pt")).logits
    ours = Dinov2Classifier(folder, mode="logit")
    torch.testing.assert_close(ours.logits(images), logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(ours.score(images, by_class()), logits.diagonal(), atol=1e-4, rtol=0)


def test_pickscore_is_what_its_published_example_computes(
    tmp_path: Path, pictures: list[Image.Image], images: Tensor
) -> None:
    folder = tiny.pickscore_folder(tmp_path / "pick")
    processor, model = AutoProcessor.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():  # the README of yuvalkirstain/PickScore, for transformers 5
        seen = model.get_image_features(**processor(images=pictures, return_tensors="pt")).pooler_output
        tokens = processor(text=PROMPTS, padding=True, truncation=True, max_length=77, return_tensors="pt")
        read = model.get_text_features(**tokens).pooler_output
        seen, read = (each / torch.norm(each, dim=-1, keepdim=True) for each in (seen, read))
        expected = model.logit_scale.exp() * (read * seen).sum(1)
    torch.testing.assert_close(PickScore(folder).score(images, by_prompt()), expected, atol=1e-4, rtol=0)


def test_image_reward_is_the_head_on_the_first_token_that_has_seen_the_image(tmp_path: Path, images: Tensor) -> None:
    folder = tiny.image_reward_folder(tmp_path / "reward")
    ours = ImageReward(folder, sha256=sha256_of(folder / "ImageReward.pt"))
    vision, text, head = tiny.blip_parts()
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    words = (folder / "vocab.txt").read_text().split("\n")
    for image, prompt, score in zip(images, PROMPTS, ours.score(images, by_prompt()), strict=True):
        pieces = [
            letter if place == 0 else f"##{letter}" for word in prompt.split() for place, letter in enumerate(word)
        ]
        ids = torch.tensor([[words.index(piece) for piece in ["[CLS]", *pieces, "[SEP]"]]])
        with torch.no_grad():  # without padding, which the published 35 tokens mask out
            seen = vision(((image - mean[:, None, None]) / std[:, None, None])[None]).last_hidden_state
            state = text(input_ids=ids, encoder_hidden_states=seen, is_decoder=False).last_hidden_state
            expected = (head(state[0, 0]) - MEAN) / STD
        assert float(score) == pytest.approx(float(expected), abs=1e-5)


# --- LAION -------------------------------------------------------------------------------------------------------


def test_the_aesthetic_heads_are_the_published_ones() -> None:
    published, features = tiny.laion_head(24).eval(), F.normalize(torch.randn(5, 24), dim=1)
    head = aesthetic_head({f"layers.{name}": value for name, value in published.state_dict().items()})
    torch.testing.assert_close(head(features), published(features))
    linear = nn.Linear(24, 1)
    torch.testing.assert_close(aesthetic_head(linear.state_dict())(features), linear(features))
    with pytest.raises(BadWeights, match="not an aesthetic predictor"):
        aesthetic_head({"head.bias": torch.zeros(1)})


# --- sets --------------------------------------------------------------------------------------------------------


class Given:
    """A network whose features of an image are its pixels."""

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def log_probabilities(self, images: Tensor) -> Tensor:
        return images.flatten(1).log_softmax(1)


def fid(features: Tensor, reference: dict[str, np.ndarray]) -> float:
    found = fid_statistics_to_metric(fid_features_to_statistics(features.double()), reference, verbose=False)
    return float(found["frechet_inception_distance"])


@pytest.mark.parametrize("images_in_set", [2, 7, 24, 25, 200], ids=lambda n: f"{n} images of 24 features")
def test_fid_of_the_set_and_each_candidate_is_torch_fidelitys(tmp_path: Path, images_in_set: int) -> None:
    draw = torch.Generator().manual_seed(images_in_set)
    mixing = torch.randn(24, 24, generator=draw)
    reference = fid_features_to_statistics((torch.randn(300, 24, generator=draw) @ mixing).double())
    np.savez(tmp_path / "stats.npz", **reference)
    oracle = FidOracle(tmp_path / "stats.npz", network=Given())
    chosen = torch.randn(images_in_set - 1, 24, generator=draw) @ mixing
    candidates = torch.randn(5, 24, generator=draw) @ mixing + 1
    expected = [fid(torch.cat([chosen, candidate[None]]), reference) for candidate in candidates]
    assert oracle.distances(chosen, candidates).tolist() == pytest.approx(expected, rel=1e-3)
    assert oracle.distances(chosen, candidates).tolist() == pytest.approx(expected, rel=1e-6)
    assert oracle.set_scores(chosen, candidates).argmax() == np.argmin(expected)


def test_a_set_of_one_is_measured_with_no_covariance_and_a_prior_counts_as_images_of_the_reference() -> None:
    draw = torch.Generator().manual_seed(0)
    mu, sigma = torch.zeros(4, dtype=torch.float64), torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    reference, image = FrechetReference(mu, sigma), torch.randn(1, 4, generator=draw)
    assert reference.distance(image) == pytest.approx(float(image.double().square().sum() + 10))
    large = torch.randn(4000, 4, generator=draw) @ sigma.sqrt().float() + 2
    mixed = torch.cat([large, torch.randn(4000, 4, generator=draw) @ sigma.sqrt().float()])
    assert reference.distance(large, prior=4000) == pytest.approx(reference.distance(mixed), rel=0.05)
    assert reference.distance(image, prior=1e9) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="n >= 1"):
        reference.distance(image[:0])


def test_greedy_choice_by_the_fid_oracle_brings_the_set_closer_than_chance() -> None:
    draw = torch.Generator().manual_seed(1)
    oracle = FidOracle({"mu": torch.zeros(6), "sigma": torch.eye(6)}, network=Given())
    chosen = chance = torch.empty(0, 6)
    for _ in range(30):
        candidates = torch.randn(8, 6, generator=draw) * 1.5 + 0.5
        chosen = torch.cat([chosen, candidates[oracle.set_scores(chosen, candidates).argmax()][None]])
        chance = torch.cat([chance, candidates[:1]])
    assert oracle.reference.distance(chosen) < oracle.reference.distance(chance) / 4


@pytest.mark.parametrize("images_in_set", [2, 30])
def test_inception_score_of_the_set_and_each_candidate_is_torch_fidelitys(images_in_set: int) -> None:
    logits = torch.randn(images_in_set + 3, 10, generator=torch.Generator().manual_seed(2)) * 2
    chosen, candidates = logits[: images_in_set - 1], logits[images_in_set - 1 :]
    ours = InceptionOracle(network=Given()).set_scores(chosen.log_softmax(1), candidates.log_softmax(1))
    for candidate, score in zip(candidates, ours, strict=True):
        expected = isc_features_to_metric(torch.cat([chosen, candidate[None]]), splits=1)["inception_score_mean"]
        assert float(score) == pytest.approx(expected, rel=1e-6)
    assert inception_score(torch.eye(7).clamp(min=1e-30).log()) == pytest.approx(7)


def test_inception_features_are_torch_fidelitys_on_8_bit_images(images: Tensor) -> None:
    ours = InceptionV3(tiny.inception_state(), first_class=1)
    with torch.no_grad():
        pooled, logits = ours.net((images[:1] * 255).round().to(torch.uint8))
    torch.testing.assert_close(ours.features(images[:1]), pooled, atol=1e-5, rtol=0)
    score = ours.score(images[:1], [Condition(class_index=4)])
    torch.testing.assert_close(score, logits.softmax(1)[:, 5], atol=1e-6, rtol=0)


# --- statistics --------------------------------------------------------------------------------------------------


def test_sharpness_and_contrast_follow_their_definitions(pictures: list[Image.Image], images: Tensor) -> None:
    asked = [Condition()] * 3
    for picture, sharpness, contrast in zip(
        pictures, Sharpness().score(images, asked), Contrast().score(images, asked), strict=True
    ):
        grey = np.asarray(picture, dtype=np.float64) @ [0.299, 0.587, 0.114] / 255
        padded = np.pad(grey, 1, mode="reflect")
        laplacian = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * grey
        assert float(sharpness) == pytest.approx(laplacian.var(), rel=1e-5)
        assert float(contrast) == pytest.approx(grey.std(), rel=1e-5)
