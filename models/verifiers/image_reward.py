"""ImageReward: BLIP's image-grounded text encoder with a reward head, through transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import BertTokenizer, BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from sitsearch.models.condition import Condition
from sitsearch.models.errors import BadWeights
from sitsearch.models.verifiers.aesthetic import aesthetic_head
from sitsearch.models.verifiers.base import Need, Verifier, Weights, check_images, prompts_of
from sitsearch.models.verifiers.preprocess import Transform
from sitsearch.models.verifiers.weights import read_state, require_folder

#: Mean and standard deviation of the head's output on the training set, from the published code.
MEAN, STD = 0.16717362830052426, 1.0333394966054072
#: Tokens of a prompt, padded or cut.
MAX_TOKENS = 35
#: Channels of one attention head in every published BLIP.
HEAD_CHANNELS = 64

#: Names in the published checkpoint and in transformers, under `blip.visual_encoder.`.
_VISION_NAMES = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^norm\.", "post_layernorm."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"^blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.\1.self_attn.qkv."),
    (r"^blocks\.(\d+)\.norm([12])\.", r"encoder.layers.\1.layer_norm\2."),
    (r"^blocks\.(\d+)\.mlp\.", r"encoder.layers.\1.mlp."),
)


def split_checkpoint(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """The published checkpoint as state dicts of `BlipVisionModel`, of `BlipTextModel` and of the head.

    Left out are BLIP's two projections, which the reward does not use, and the text encoder's position numbers.
    """
    vision, text, head = {}, {}, {}
    for name, value in state.items():
        if name.startswith("blip.visual_encoder."):
            short = name.removeprefix("blip.visual_encoder.")
            for pattern, replacement in _VISION_NAMES:
                short = re.sub(pattern, replacement, short)
            vision[short] = value
        elif name.startswith("blip.text_encoder.") and not name.endswith(".position_ids"):
            text[name.removeprefix("blip.text_encoder.")] = value
        elif name.startswith("mlp."):
            head[name.removeprefix("mlp.")] = value
    return vision, text, head


def _vision_model(state: Mapping[str, Tensor]) -> tuple[BlipVisionModel, int]:
    """The image encoder, and the size of its images."""
    hidden, _, patch, _ = state["embeddings.patch_embedding.weight"].shape
    size = round((state["embeddings.position_embedding"].shape[1] - 1) ** 0.5) * patch
    config = BlipVisionConfig(
        hidden_size=hidden,
        intermediate_size=state["encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=_depth(state),
        num_attention_heads=hidden // HEAD_CHANNELS,
        image_size=size,
        patch_size=patch,
        layer_norm_eps=1e-6,
    )
    model = BlipVisionModel(config)
    model.load_state_dict(state)
    return model, size


def _text_model(state: Mapping[str, Tensor]) -> BlipTextModel:
    vocabulary, hidden = state["embeddings.word_embeddings.weight"].shape
    config = BlipTextConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        encoder_hidden_size=state["encoder.layer.0.crossattention.self.key.weight"].shape[1],
        intermediate_size=state["encoder.layer.0.intermediate.dense.weight"].shape[0],
        num_hidden_layers=_depth(state),
        num_attention_heads=hidden // HEAD_CHANNELS,
        max_position_embeddings=len(state["embeddings.position_embeddings.weight"]),
        bos_token_id=None,
        is_decoder=True,  # gives it cross-attention; it is called as the encoder it is
    )
    model = BlipTextModel(config, add_pooling_layer=False)
    model.load_state_dict(state)
    return model


def _depth(state: Mapping[str, Tensor]) -> int:
    return 1 + max(int(found[1]) for name in state if (found := re.search(r"layers?\.(\d+)\.", name)))


class ImageReward(Verifier):
    """ImageReward of image and prompt, about normal with mean 0 on its training set (arXiv 2304.05977, section 3).

    Args:
        weights: folder with the published `ImageReward.pt`, or the same as `ImageReward.safetensors`, and the
            `vocab.txt` of `bert-base-uncased`.
        device: where it runs.
        sha256: checksum of `ImageReward.pt`.

    Raises:
        BadWeights: a file is missing or does not fit.
    """

    needs: frozenset[Need] = frozenset({"prompt"})
    differentiable = True

    def __init__(self, weights: Weights, *, device: str = "cpu", sha256: str | None = None) -> None:
        folder = require_folder(weights, "ImageReward.*", "vocab.txt")
        safe = folder / "ImageReward.safetensors"
        vision, text, head = split_checkpoint(
            read_state(safe if safe.is_file() else folder / "ImageReward.pt", sha256=sha256)
        )
        try:
            (self.vision, size), self.text, self.head = _vision_model(vision), _text_model(text), aesthetic_head(head)
        except (KeyError, RuntimeError, ValueError) as error:
            raise BadWeights(f"{folder} does not hold an ImageReward checkpoint: {error}") from error
        for part in (self.vision, self.text, self.head):
            part.float().to(device).eval().requires_grad_(False)
        self.tokenizer = BertTokenizer(str(folder / "vocab.txt"))
        self.transform = Transform(resize=size, crop=(size, size))
        self.device = device

    @torch.inference_mode()
    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        """See `Verifier.score`."""
        check_images(images)
        return self.differentiable_score(images, conditions).cpu()

    def differentiable_score(self, images: Tensor, conditions: Sequence[Condition]) -> Tensor:
        """See `Verifier.differentiable_score`."""
        prompts = prompts_of(conditions, len(images))
        tokens = self.tokenizer(
            prompts, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(self.device)
        seen = self.vision(self.transform(images.to(self.device))).last_hidden_state
        read = self.text(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=self.device),
            is_decoder=False,
        ).last_hidden_state
        return (self.head(read[:, 0]).squeeze(1) - MEAN) / STD
