"""PickScore through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from transformers import AutoTokenizer, CLIPModel

from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.base import Need, Verifier, Weights, check_images, prompts_of
from sitsearch.models.verifiers.clip import unit
from sitsearch.models.verifiers.preprocess import Transform
from sitsearch.models.verifiers.weights import load_pretrained, require_folder


class PickScore(Verifier):
    """Learned scale times cosine of image and prompt, under a CLIP fine-tuned on Pick-a-Pic (arXiv 2305.01569, eq. 2).

    Args:
        weights: folder of a transformers `CLIPModel` with its tokenizer and `preprocessor_config.json`:
            `yuvalkirstain/PickScore_v1` has all of them. About 18 to 24 under those.
        device: where it runs.

    Raises:
        BadWeights: the folder lacks a file, or the weights do not fit its configuration.
    """

    needs: frozenset[Need] = frozenset({"prompt"})
    differentiable = True

    def __init__(self, weights: Weights, *, device: str = "cpu") -> None:
        folder = require_folder(weights, "config.json", "*.safetensors", "preprocessor_config.json", "tokenizer*")
        self.model: CLIPModel = load_pretrained(CLIPModel, folder, device)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.transform = Transform.from_transformers(folder)
        self.scale = float(self.model.logit_scale.exp())
        self.device, self.range = device, (-self.scale, self.scale)
        self._text = lru_cache(maxsize=1024)(self._encode_text)

    def embed(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` in [0, 1] to image embeddings `[B, D]`, with their graph and not normalised."""
        return self.model.get_image_features(self.transform(images.to(self.device))).pooler_output

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """The same without a graph, on the CPU."""
        check_images(images)
        return self.embed(images).cpu()

    @torch.inference_mode()
    def _encode_text(self, text: str) -> Tensor:
        tokens = self.tokenizer(text, truncation=True, max_length=77, return_tensors="pt").to(self.device)
        embedding: Tensor = self.model.get_text_features(**tokens).pooler_output
        return unit(embedding)[0].cpu()

    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        """See `Verifier.score`."""
        check_images(images)
        return self.scale * (unit(self.features(images)) * self._texts(conditions, len(images))).sum(dim=1)

    def differentiable_score(self, images: Tensor, conditions: Sequence[Condition]) -> Tensor:
        """See `Verifier.differentiable_score`."""
        texts = self._texts(conditions, len(images)).to(self.device)
        return self.scale * (unit(self.embed(images)) * texts).sum(dim=1)

    def _texts(self, conditions: Sequence[Condition], batch: int) -> Tensor:
        return torch.stack([self._text(prompt) for prompt in prompts_of(conditions, batch)])
