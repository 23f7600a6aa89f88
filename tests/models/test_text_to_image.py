"""The adapter of text-to-image pipelines, held against the pipelines' own loops on tiny random weights."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import Mock, call

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sitsearch.models.condition import Condition
from sitsearch.models.errors import BadWeights, MissingLibrary
from sitsearch.models.guidance import combine
from sitsearch.models.samplers import make_sampler, time_grid
from sitsearch.models.text_to_image import TextToImage, base, load_text_to_image
from tests.models.tiny_sd3 import save_flux, save_sd3

TOKENS = 24
SIDE = 16
PROMPTS = ["a red cat", "a blue dog"]
NOISE = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(5))


@dataclass(frozen=True)
class Case:
    """A saved pipeline with its adapter, and how its own call is asked for the same thing."""

    folder: Path
    generator: TextToImage

    def own_call(self, noise: Tensor, prompts: list[str], *, steps: int, guidance: float, output: str) -> Any:
        """What the pipeline itself makes of the noise, on the grid that ours has."""
        pipeline = self.generator.pipeline
        flux = type(pipeline).__name__ == "FluxPipeline"
        asked: dict[str, Any] = {"guidance_scale": guidance, "negative_prompt": None}
        if flux:
            noise = pipeline._pack_latents(noise, *noise.shape)
            asked = {"guidance_scale": 2.5, "true_cfg_scale": guidance, "negative_prompt": [""] * len(prompts)}
        pipeline.set_progress_bar_config(disable=True)
        images = pipeline(
            prompts,
            height=SIDE,
            width=SIDE,
            sigmas=np.linspace(1.0, 1 / steps, steps).tolist(),
            num_inference_steps=steps,
            latents=noise,
            max_sequence_length=TOKENS,
            output_type=output,
            **asked,
        ).images
        if flux and output == "latent":
            return pipeline._unpack_latents(images, SIDE, SIDE, pipeline.vae_scale_factor)
        return images


@pytest.fixture(scope="module", params=["sd3", "flux"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp(request.param)
    {"sd3": save_sd3, "flux": save_flux}[request.param](folder)
    generator = load_text_to_image(folder, resolution=SIDE, max_tokens=TOKENS, embedded_guidance=2.5)
    return Case(folder, generator)


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sd3-files")
    save_sd3(folder)
    return folder


def sample(generator: TextToImage, noise: Tensor, prompts: list[str], *, steps: int, guidance: float) -> Tensor:
    """Euler with classifier-free guidance, as the engine does it: two rows an evaluation."""
    sampler = make_sampler("euler", steps=steps, shift=generator.shift)
    told = generator.rows([Condition(prompt=prompt) for prompt in prompts])
    untold = generator.unconditional(len(prompts))
    state = sampler.init(noise)
    while not state.done:
        prediction = generator.evaluate(state.query_x, state.query_t, told)
        if guidance != 1:
            other = generator.evaluate(state.query_x, state.query_t, untold)
            prediction = combine(prediction, other, guidance, channels=generator.guided_channels)
        state = sampler.step(state, prediction)
    return state.x


@pytest.mark.parametrize("guidance", [1.0, 4.5])
def test_samples_what_the_pipeline_itself_samples(case: Case, guidance: float) -> None:
    ours = sample(case.generator, NOISE, PROMPTS, steps=5, guidance=guidance)
    theirs = case.own_call(NOISE, PROMPTS, steps=5, guidance=guidance, output="latent")
    assert theirs.std() > 0.5
    assert (ours - theirs).abs().max() <= 1e-4


def test_decodes_to_the_pixels_that_the_pipeline_itself_gives(case: Case) -> None:
    latents = sample(case.generator, NOISE, PROMPTS, steps=3, guidance=2.0)
    ours = case.generator.decoder.decode(latents)
    theirs = torch.from_numpy(case.own_call(NOISE, PROMPTS, steps=3, guidance=2.0, output="np")) * 255
    assert ours.dtype == torch.uint8 and ours.shape == (2, SIDE, SIDE, 3)
    assert theirs.std() > 20
    assert (ours - theirs).abs().max() <= 0.51  # half a level of rounding


def test_a_batch_equals_its_singles(case: Case) -> None:
    together = sample(case.generator, NOISE, PROMPTS, steps=3, guidance=2.0)
    for i, prompt in enumerate(PROMPTS):
        alone = sample(case.generator, NOISE[i : i + 1], [prompt], steps=3, guidance=2.0)
        assert (together[i] - alone[0]).abs().max() <= 1e-5


def test_each_row_has_its_own_time(case: Case) -> None:
    rows = case.generator.rows([Condition(prompt=prompt) for prompt in PROMPTS])
    times = torch.tensor([0.1, 0.8])
    together = case.generator.evaluate(NOISE, times, rows)
    alone = case.generator.evaluate(NOISE[1:], times[1:], tuple(part[1:] for part in rows))
    assert together.dtype == torch.float32
    assert (together[1] - alone[0]).abs().max() <= 1e-5
    elsewhere = case.generator.evaluate(NOISE, torch.full((2,), 0.1), rows)
    assert (together[1] - elsewhere[1]).abs().max() > 0.1


def test_the_prompt_changes_the_sample(case: Case) -> None:
    same_noise = NOISE[:1].expand(2, -1, -1, -1)
    first, second = sample(case.generator, same_noise, PROMPTS, steps=3, guidance=1.0)
    assert (first - second).std() > 0.05


def test_one_prompt_is_encoded_once_and_its_rows_share_memory(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = Mock(wraps=case.generator._encode)
    monkeypatch.setattr(case.generator, "_encode", encode)
    rows = case.generator.rows([Condition(prompt="a unicorn")] * 3)
    case.generator.rows([Condition(prompt="a unicorn"), Condition(prompt=PROMPTS[0])])
    assert encode.mock_calls.count(call("a unicorn")) == 1
    for part in rows:
        assert len(part) == 3 and part.stride(0) == 0


def test_the_least_recently_used_prompt_is_forgotten(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "PROMPTS_KEPT", 2)
    monkeypatch.setattr(case.generator, "_embeddings", type(case.generator._embeddings)())
    for prompt in ("one", "two", "one", "three"):
        case.generator.rows([Condition(prompt=prompt)])
    assert list(case.generator._embeddings) == ["one", "three"]


@pytest.mark.parametrize("conditions", [[Condition(class_index=3)], [Condition(prompt="x"), Condition()], []])
def test_conditions_without_a_prompt_are_refused(case: Case, conditions: list[Condition]) -> None:
    with pytest.raises(ValueError, match="every condition needs a prompt"):
        case.generator.rows(conditions)


def test_the_negative_prompt_stands_for_no_condition(case: Case) -> None:
    other = load_text_to_image(case.folder, resolution=SIDE, max_tokens=TOKENS, negative_prompt="ugly")
    ugly = case.generator.rows([Condition(prompt="ugly")] * 2)
    for mine, negative, empty in zip(ugly, other.unconditional(2), case.generator.unconditional(2), strict=True):
        assert torch.equal(mine, negative)
        assert not torch.equal(mine, empty)


def test_shift_is_that_of_the_pipelines_scheduler(case: Case) -> None:
    case.own_call(NOISE, PROMPTS, steps=4, guidance=1.0, output="latent")
    grid = time_grid(0.0, 1.0, 4, case.generator.shift, torch.float64)
    assert torch.allclose(1 - grid.float(), case.generator.pipeline.scheduler.sigmas, atol=1e-6)


def test_reports_shape_and_parameters(case: Case) -> None:
    weights = load_file(case.folder / "transformer" / "diffusion_pytorch_model.safetensors")
    buffers = {name for name, _ in case.generator.pipeline.transformer.named_buffers()}
    assert case.generator.parameters == sum(w.numel() for name, w in weights.items() if name not in buffers)
    assert case.generator.shape == (16, SIDE // 2, SIDE // 2)


def test_images_may_be_oblong(case: Case) -> None:
    generator = load_text_to_image(case.folder, resolution=(8, 16), max_tokens=TOKENS)
    x = torch.randn(1, *generator.shape, generator=torch.Generator().manual_seed(0))
    latents = sample(generator, x, PROMPTS[:1], steps=1, guidance=1.0)
    assert generator.shape == (16, 4, 8) == tuple(latents.shape[1:])
    assert generator.decoder.decode(latents).shape == (1, 8, 16, 3)


@pytest.mark.parametrize("resolution", [0, 18, (16, 18)])
def test_a_resolution_that_leaves_half_a_patch_is_refused(case: Case, resolution: Any) -> None:
    with pytest.raises(ValueError, match="multiples of 4 pixels"):
        load_text_to_image(case.folder, resolution=resolution)


def test_encoding_inverts_decodings_scale(case: Case) -> None:
    vae = case.generator.pipeline.vae
    images = torch.randint(0, 256, (2, SIDE, SIDE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    states = case.generator.decoder.encode(images)
    mean = vae.encode(images.permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mean
    assert states.shape == (2, *case.generator.shape)
    assert torch.allclose(states, (mean - vae.config.shift_factor) * vae.config.scaling_factor, atol=1e-5)


def test_offloaded_encoders_visit_the_device_only_to_encode(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = load_text_to_image(case.folder, resolution=SIDE, max_tokens=TOKENS, offload_encoders=True)
    generator.device = torch.device("cpu:0")  # told apart from "cpu" by its name only
    moves = [Mock(wraps=encoder.to) for encoder in generator._encoders]
    for encoder, move in zip(generator._encoders, moves, strict=True):
        monkeypatch.setattr(encoder, "to", move)
    rows = generator.rows([Condition(prompt=PROMPTS[0])] * 2)
    assert moves
    for move in moves:
        assert move.mock_calls == [call(generator.device), call("cpu")]
    for mine, kept in zip(rows, case.generator.rows([Condition(prompt=PROMPTS[0])] * 2), strict=True):
        assert torch.equal(mine, kept)


def test_sd3_refuses_images_larger_than_its_positions(sd3: Path) -> None:
    with pytest.raises(ValueError, match="up to 32 pixels a side"):
        load_text_to_image(sd3, resolution=64)


def test_sd3_runs_without_t5(sd3: Path) -> None:
    generator = load_text_to_image(sd3, max_tokens=TOKENS, without=("text_encoder_3",))
    tokens, _ = generator.rows([Condition(prompt="a cat")])
    assert generator.pipeline.text_encoder_3 is None and generator.pipeline.tokenizer_3 is None
    assert tokens.shape[1] == 16 + TOKENS and not tokens[:, 16:].any() and tokens[:, :16].any()
    assert sample(generator, NOISE[:1], ["a cat"], steps=1, guidance=2.0).isfinite().all()


def test_runs_in_half_precision(sd3: Path) -> None:
    full = load_text_to_image(sd3, max_tokens=TOKENS)
    half = load_text_to_image(sd3, max_tokens=TOKENS, dtype=torch.bfloat16)
    rough = sample(half, NOISE, PROMPTS, steps=2, guidance=1.0)
    exact = sample(full, NOISE, PROMPTS, steps=2, guidance=1.0)
    assert rough.dtype == torch.float32 and half.dtype == torch.bfloat16
    assert (rough - exact).abs().mean() < 0.05
    assert torch.equal(half.decoder.decode(exact), full.decoder.decode(exact))  # the VAE stays in float32


@pytest.mark.parametrize("tokens", [0, 513])
def test_a_token_count_out_of_range_is_refused(sd3: Path, tokens: int) -> None:
    with pytest.raises(ValueError, match=r"max_tokens must be in \[1, 512\]"):
        load_text_to_image(sd3, max_tokens=tokens)


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_folder_without_a_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match="holds no diffusers pipeline"):
        load_text_to_image(tmp_path)


def test_a_pipeline_of_another_class_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(BadWeights, match="holds a StableDiffusionPipeline; there are StableDiffusion3Pipeline"):
        load_text_to_image(tmp_path)


def test_without_diffusers_it_says_what_to_install(sd3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingLibrary, match="pip install diffusers"):
        load_text_to_image(sd3)


def _pickle_the_transformer(folder: Path) -> None:
    part = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(part), part.with_suffix(".bin"))
    part.unlink()


def _cut_the_transformer(folder: Path) -> None:
    part = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    part.write_bytes(part.read_bytes()[:-1000])


def _change_the_width(folder: Path) -> None:
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"attention_head_dim": 16}))


def _forget_a_weight_of(part: Path) -> None:
    tensors = load_file(part)
    del tensors[min(name for name in tensors if name.endswith("weight"))]
    save_file(tensors, part, metadata={"format": "pt"})


def _forget_a_weight_of_the_transformer(folder: Path) -> None:
    _forget_a_weight_of(folder / "transformer" / "diffusion_pytorch_model.safetensors")


def _forget_a_weight_of_an_encoder(folder: Path) -> None:
    _forget_a_weight_of(folder / "text_encoder" / "model.safetensors")


def _drop_an_encoder(folder: Path) -> None:
    shutil.rmtree(folder / "text_encoder_2")


def _name_an_unknown_class(folder: Path) -> None:
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"transformer": ["diffusers", "NoSuchModel"]}))


def _bring_code(folder: Path) -> None:
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"transformer": ["mine", "Mine"]}))
    (folder / "transformer" / "mine.py").write_text("open('ran', 'w').close()\nclass Mine: pass\n")


@pytest.mark.parametrize(
    "damage",
    [
        _pickle_the_transformer,
        _cut_the_transformer,
        _change_the_width,
        _forget_a_weight_of_the_transformer,
        _forget_a_weight_of_an_encoder,
        _drop_an_encoder,
        _name_an_unknown_class,
        _bring_code,
    ],
)
def test_damaged_or_unsafe_files_are_refused(
    sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(sd3, folder)
    damage(folder)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadWeights, match="cannot load"):
        load_text_to_image(folder)
    assert not (tmp_path / "ran").exists()
