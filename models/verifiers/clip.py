"""CLIP through open_clip: CLIPScore of a prompt, and zero-shot classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any

import open_clip  # type: ignore[import-untyped]
import torch
from pydantic import Field
from torch import Tensor

from sitsearch.models.condition import Condition
from sitsearch.models.errors import BadWeights
from sitsearch.models.verifiers.base import Need, Verifier, Weights, check_images, class_indices, prompts_of
from sitsearch.models.verifiers.class_score import RANGES, ClassMode, class_score
from sitsearch.models.verifiers.preprocess import Transform
from sitsearch.models.verifiers.weights import read_state, require_folder


class OpenClip:
    """An open_clip model with its tokenizer and its own pre-processing; images of any size.

    Args:
        weights: a folder with `open_clip_config.json` and one `*.safetensors`, or a file or state dict for
            `architecture`.
        device: where it runs.
        architecture: one of open_clip's model names, e.g. `ViT-L-14-quickgelu`; None for a folder.
        sha256: checksum of a weights file that is not safetensors.

    Raises:
        BadWeights: the weights are missing, or do not fit the architecture.
    """

    def __init__(
        self, weights: Weights, *, device: str = "cpu", architecture: str | None = None, sha256: str | None = None
    ) -> None:
        if architecture is None:
            name = f"local-dir:{require_folder(weights, 'open_clip_config.json', '*.safetensors')}"
        elif architecture in open_clip.list_models():
            name = architecture
        else:
            raise BadWeights(f"open_clip has no model {architecture!r}")
        self.model = open_clip.create_model(name, device=device, pretrained_text=False)
        if architecture is not None:
            _load(self.model, read_state(weights, sha256=sha256))
        self.model.eval().requires_grad_(False)
        self.tokenizer = open_clip.get_tokenizer(name)
        self.transform = Transform.from_open_clip(self.model.visual.preprocess_cfg)
        self.device = device
        self._text = lru_cache(maxsize=1024)(self._encode_text)

    def embed(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` in [0, 1] to image embeddings `[B, D]`, with their graph and not normalised."""
        return self.model.encode_image(self.transform(images.to(self.device))).float()

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """The same without a graph, on the CPU."""
        check_images(images)
        return self.embed(images).cpu()

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Texts to embeddings `[N, D]` of length 1; each is encoded by itself, once."""
        return torch.stack([self._text(text) for text in texts])

    @torch.inference_mode()
    def _encode_text(self, text: str) -> Tensor:
        return self.model.encode_text(self.tokenizer([text]).to(self.device), normalize=True)[0].float().cpu()

    def cosines(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """`[B]` cosines between images `[B, 3, H, W]` and their texts."""
        return (unit(self.features(images)) * self.text_features(texts)).sum(dim=1)

    def differentiable_cosines(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """The same with their graph, on the network's device."""
        return (unit(self.embed(images)) * self.text_features(texts).to(self.device)).sum(dim=1)

    @property
    def logit_scale(self) -> float:
        """The learned inverse temperature, exp of the parameter."""
        return float(self.model.logit_scale.exp())


def _load(model: Any, state: Mapping[str, Tensor]) -> None:
    """Load a whole state dict; old checkpoints carry buffers that open_clip no longer has."""
    own = model.state_dict()
    unknown = sorted(name for name in state if name not in own and not name.endswith("position_ids"))
    missing = sorted(name for name in own if name not in state and not name.endswith("attn_mask"))
    if unknown or missing:
        raise BadWeights(f"the weights do not fit: missing {missing[:3]}, unknown {unknown[:3]}")
    model.load_state_dict({name: value for name, value in state.items() if name in own}, strict=False)


def unit(features: Tensor) -> Tensor:
    """Rows of `[B, D]` scaled to length 1."""
    return features / features.norm(dim=1, keepdim=True).clamp(min=1e-12)


class ClipScore(OpenClip, Verifier):
    """CLIPScore w max(cos(image, prompt), 0) (Hessel et al. 2021, arXiv 2104.08718, section 3).

    Args:
        weights, device, architecture, sha256: see `OpenClip`.
        weight: w; 2.5 in the paper.
        prefix: what stands before every prompt; the paper found "A photo depicts " to help on photographs.
        clamped: whether a negative cosine counts as 0, as published; a search can climb better if not.
    """

    needs: frozenset[Need] = frozenset({"prompt"})
    differentiable = True

    def __init__(
        self,
        weights: Weights,
        *,
        device: str = "cpu",
        architecture: str | None = None,
        sha256: str | None = None,
        weight: Annotated[float, Field(gt=0)] = 2.5,
        prefix: str = "",
        clamped: bool = True,
    ) -> None:
        super().__init__(weights, device=device, architecture=architecture, sha256=sha256)
        self.weight, self.prefix, self.clamped = weight, prefix, clamped
        self.range = (0.0 if clamped else -weight, weight)

    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        """CLIPScore of each image with its prompt; see `Verifier.score`."""
        check_images(images)
        cosines = self.cosines(images, self._texts(conditions, len(images)))
        return self.weight * (cosines.clamp(min=0) if self.clamped else cosines)

    def differentiable_score(self, images: Tensor, conditions: Sequence[Condition]) -> Tensor:
        """See `Verifier.differentiable_score`; negative cosines are not clamped."""
        return self.weight * self.differentiable_cosines(images, self._texts(conditions, len(images)))

    def _texts(self, conditions: Sequence[Condition], batch: int) -> list[str]:
        return [self.prefix + prompt for prompt in prompts_of(conditions, batch)]


class ClipZeroShot(OpenClip, Verifier):
    """Score of the asked class under CLIP's zero-shot classifier (arXiv 2103.00020, 3.1.4).

    A class's weight vector is the mean of its templates' text embeddings, each normalised, normalised again; the logits
    are its cosines with the image times the learned scale.

    Args:
        weights, device, architecture, sha256: see `OpenClip`.
        classes: class names, by index, as they shall stand in a text.
        templates: texts with `{}` where the name goes.
        mode: which score of the class; see `ClassMode`.
    """

    needs: frozenset[Need] = frozenset({"class"})
    differentiable = True

    def __init__(
        self,
        weights: Weights,
        *,
        classes: Annotated[tuple[str, ...], Field(min_length=2)],
        templates: Annotated[tuple[str, ...], Field(min_length=1)] = ("a photo of a {}.",),
        device: str = "cpu",
        architecture: str | None = None,
        sha256: str | None = None,
        mode: ClassMode = "log_probability",
    ) -> None:
        super().__init__(weights, device=device, architecture=architecture, sha256=sha256)
        with torch.no_grad():
            self.classifier: Tensor = open_clip.build_zero_shot_classifier(
                self.model, self.tokenizer, list(classes), list(templates), device=device
            )
        self.classifier = self.classifier.float().cpu()
        self.num_classes = len(classes)
        self.mode, self.range = mode, RANGES[mode]
        if mode == "logit":
            self.range = (-self.logit_scale, self.logit_scale)

    def logits(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` in [0, 1] to logits `[B, num_classes]`."""
        return self.logit_scale * unit(self.features(images)) @ self.classifier

    def log_probabilities(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` in [0, 1] to log-probabilities `[B, num_classes]`."""
        return self.logits(images).log_softmax(dim=1)

    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        """The asked class's score in this verifier's mode; see `Verifier.score`."""
        logits = self.logits(images)
        return class_score(logits, class_indices(conditions, len(images), self.num_classes), self.mode)

    def differentiable_score(self, images: Tensor, conditions: Sequence[Condition]) -> Tensor:
        """See `Verifier.differentiable_score`."""
        logits = self.logit_scale * unit(self.embed(images)) @ self.classifier.to(self.device)
        return class_score(logits, class_indices(conditions, len(images), self.num_classes), self.mode)
