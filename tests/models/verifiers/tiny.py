"""Every kind of verifier, small: random weights of the real classes, saved in the real formats, or the bundled ones."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from transformers import (
    BitImageProcessor,
    BlipTextConfig,
    BlipTextModel,
    BlipVisionConfig,
    BlipVisionModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2ForImageClassification,
)

from sitsearch.models.catalog import ROOT, load_generator
from sitsearch.models.checksums import sha256_of
from sitsearch.models.verifiers.auditor_net import AuditorNet
from sitsearch.models.verifiers.base import Verifier
from sitsearch.models.verifiers.registry import build_verifier
from tests.models.verifiers.answers import judge_verdict, remote_scores

SIZE = 32
NAMES = ("capital letter H", "capital letter I", "digit seven")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
GLYPHS = {"kind": "glyph_classifier", "weights": str(ROOT / "checkpoints" / "glyph_classifier.safetensors")}

OPEN_CLIP: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": SIZE, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def open_clip_folder(folder: Path, config: dict[str, Any] = OPEN_CLIP) -> Path:
    """A folder as open_clip's hub ones are."""
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    return folder


def hpsv2_checkpoint(folder: Path) -> tuple[Path, str]:
    """A checkpoint as HPSv2's are, a pickle of `{"state_dict": ...}`, and open_clip's name of its tiny network."""
    torch.manual_seed(1)
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "tiny-hps.json").write_text(json.dumps(OPEN_CLIP))
    open_clip.add_model_config(folder / "configs")
    path = folder / "HPS_v2_tiny.pt"
    torch.save({"epoch": 1, "state_dict": open_clip.CLIP(**OPEN_CLIP).state_dict()}, path)
    return path, "tiny-hps"


def dinov2_folder(folder: Path) -> Path:
    """A folder of transformers, with its pre-processing."""
    torch.manual_seed(2)
    config = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        num_labels=len(NAMES),
    )
    Dinov2ForImageClassification(config).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder


def pickscore_folder(folder: Path) -> Path:
    """A folder of transformers with a `CLIPModel`, a tokenizer and its pre-processing, as PickScore's is."""
    torch.manual_seed(3)
    words = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    vocabulary = {word: index for index, word in enumerate(words)}
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": len(vocabulary), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = {"image_size": SIZE, "patch_size": 8}
    config = CLIPConfig(text_config={**tower, **text}, vision_config={**tower, **vision}, projection_dim=24)
    CLIPModel(config).save_pretrained(folder)
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    edge = {"shortest_edge": SIZE}
    CLIPImageProcessor(size=edge, crop_size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return folder


def laion_head(width: int) -> nn.Sequential:
    """The published MLP, layer by layer as its repository builds it."""
    sizes = (width, 1024, 128, 64, 16, 1)
    a, b, c, d, e = (nn.Linear(sizes[i], sizes[i + 1]) for i in range(5))
    return nn.Sequential(a, nn.Dropout(0.2), b, nn.Dropout(0.2), c, nn.Dropout(0.1), d, e)


def blip_parts() -> tuple[BlipVisionModel, BlipTextModel, nn.Sequential]:
    """ImageReward's three networks, small."""
    torch.manual_seed(4)
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 1}
    vision = BlipVisionModel(BlipVisionConfig(**size, image_size=SIZE, patch_size=16, layer_norm_eps=1e-6))
    nn.init.normal_(vision.embeddings.position_embedding, std=0.02)
    text = BlipTextModel(
        BlipTextConfig(**size, encoder_hidden_size=64, vocab_size=100, max_position_embeddings=40),
        add_pooling_layer=False,
    )
    return vision.eval(), text.eval(), laion_head(64).eval()


def image_reward_folder(folder: Path) -> Path:
    """`ImageReward.pt` under the names of the published checkpoint, and a vocabulary."""
    vision, text, head = blip_parts()
    state = {f"mlp.layers.{name}": value for name, value in head.state_dict().items()}
    state |= {f"blip.text_encoder.{name}": value for name, value in text.state_dict().items()}
    state["blip.text_encoder.embeddings.position_ids"] = torch.arange(40)[None]
    state["blip.vision_proj.weight"] = torch.zeros(256, 64)  # in the checkpoint, not in the reward
    for name, value in vision.state_dict().items():
        for ours, theirs in (
            ("embeddings.class_embedding", "cls_token"),
            ("embeddings.position_embedding", "pos_embed"),
            ("embeddings.patch_embedding", "patch_embed.proj"),
            ("encoder.layers.", "blocks."),
            ("self_attn.projection", "attn.proj"),
            ("self_attn.qkv", "attn.qkv"),
            ("post_layernorm", "norm"),
            ("layer_norm", "norm"),
        ):
            name = name.replace(ours, theirs)
        state[f"blip.visual_encoder.{name}"] = value
    folder.mkdir(parents=True)
    torch.save(state, folder / "ImageReward.pt")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return folder


class _Blank(FeatureExtractorInceptionV3):
    """InceptionV3 with the weights it was born with."""

    def load_state_dict(self, *_: Any, **__: Any) -> None:
        """Keep them."""


def inception_state() -> dict[str, torch.Tensor]:
    """Random weights of torch-fidelity's InceptionV3."""
    torch.manual_seed(5)
    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    return dict(_Blank("blank", ["2048"], feature_extractor_weights_path=empty).state_dict())


def auditor_state() -> dict[str, torch.Tensor]:
    """Random weights of the auditor's network."""
    torch.manual_seed(7)
    return AuditorNet(len(NAMES), (8, 16), (1, 1)).state_dict()


def _aesthetic(folder: Path) -> Verifier:
    torch.manual_seed(6)
    clip = {"kind": "clip_score", "weights": str(open_clip_folder(folder / "clip"))}
    head = {f"layers.{name}": value for name, value in laion_head(24).state_dict().items()}
    return build_verifier("aesthetic", head, options={"network": clip})


def _hpsv2(folder: Path) -> Verifier:
    path, architecture = hpsv2_checkpoint(folder)
    return build_verifier("hpsv2", path, options={"architecture": architecture, "sha256": sha256_of(path)})


def _image_reward(folder: Path) -> Verifier:
    path = image_reward_folder(folder / "reward")
    return build_verifier("image_reward", path, options={"sha256": sha256_of(path / "ImageReward.pt")})


def _zero_shot(folder: Path) -> Verifier:
    options = {"classes": NAMES, "templates": ("a photo of a {}.", "the {}")}
    return build_verifier("clip_zero_shot", open_clip_folder(folder / "clip"), options=options)


def _fid(folder: Path) -> Verifier:
    return build_verifier("fid_oracle", ROOT / "checkpoints" / "glyphs_stats.npz", options={"network": GLYPHS})


def _asking_a_generator(kind: str, **options: Any) -> Callable[[Path], Verifier]:
    return lambda _: build_verifier(kind, options={"generator": "glyphs", **options}, load_generator=load_generator)


def _plain(kind: str, **options: Any) -> Callable[[Path], Verifier]:
    return lambda _: build_verifier(kind, options=options)


#: kind -> makes one; a folder is given to write weights to. A kind that is missing here fails the contract's test.
TINY: dict[str, Callable[[Path], Verifier]] = {
    "aesthetic": _aesthetic,
    "clip_score": lambda folder: build_verifier("clip_score", open_clip_folder(folder / "clip")),
    "clip_zero_shot": _zero_shot,
    "contrast": _plain("contrast"),
    "dinov2": lambda folder: build_verifier("dinov2", dinov2_folder(folder / "dino")),
    "fid_oracle": _fid,
    "glyph_auditor": lambda _: build_verifier(
        "glyph_auditor", auditor_state(), options={"widths": (8, 16), "depths": (1, 1)}
    ),
    "glyph_classifier": lambda _: build_verifier("glyph_classifier", GLYPHS["weights"]),
    "hpsv2": _hpsv2,
    "image_reward": _image_reward,
    "inception": lambda _: build_verifier("inception", inception_state()),
    "inception_oracle": _plain("inception_oracle", network=GLYPHS),
    "likelihood": _asking_a_generator("likelihood", steps=2),
    "pickscore": lambda folder: build_verifier("pickscore", pickscore_folder(folder / "pick")),
    "reconstruction": _asking_a_generator("reconstruction", levels=3),
    "sharpness": _plain("sharpness"),
    "similarity": _plain("similarity", network=GLYPHS),
}

#: kind -> what a server must answer, and the options that point to it.
SERVED: dict[str, tuple[Any, Callable[[str], dict[str, Any]]]] = {
    "remote": (remote_scores, lambda url: {"url": url, "bounds": (0, 1), "batch": 2}),
    "vlm_judge": (judge_verdict, lambda url: {"base_url": f"{url}/v1", "model": "tiny"}),
}
