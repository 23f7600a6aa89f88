"""LAION's aesthetic predictors: a head on CLIP image embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sitsearch.models.condition import Condition
from sitsearch.models.errors import BadWeights
from sitsearch.models.verifiers.base import FeatureNetwork, Verifier, Weights, check_count
from sitsearch.models.verifiers.clip import unit
from sitsearch.models.verifiers.weights import read_state


def aesthetic_head(state: Mapping[str, Tensor]) -> nn.Module:
    """The head that a state dict describes, on embeddings of length 1.

    `layers.0`, `.2`, `.4`, `.6`, `.7`: the MLP of improved-aesthetic-predictor (christophschuhmann), five linear layers
    with dropout, and no activations, between them; `weight` and `bias`: the linear head of
    aesthetic-predictor (LAION-AI).

    Raises:
        BadWeights: it is neither.
    """
    if set(state) == {"weight", "bias"}:
        linear = nn.Linear(state["weight"].shape[1], 1)
        linear.load_state_dict(state)
        return linear
    places = (0, 2, 4, 6, 7)
    if set(state) != {f"layers.{place}.{part}" for place in places for part in ("weight", "bias")}:
        raise BadWeights(f"not an aesthetic predictor's weights: {sorted(state)[:4]}")
    head = nn.Sequential()  # dropout does nothing when scoring
    for place in places:
        outputs, inputs = state[f"layers.{place}.weight"].shape
        head.append(layer := nn.Linear(inputs, outputs))
        layer.load_state_dict({part: state[f"layers.{place}.{part}"] for part in ("weight", "bias")})
    return head


class AestheticPredictor(Verifier):
    """Predicted mean opinion of people, about 1 to 10 under the published weights; it reads no prompt.

    Args:
        weights: state dict of a head (see `aesthetic_head`), or its file, e.g. `sac+logos+ava1-l14-linearMSE.pth`.
        device: where it runs.
        network: whose embeddings the head reads: CLIP ViT-L/14 of OpenAI for the published ones.
        sha256: checksum of a file that is not safetensors.

    Raises:
        BadWeights: the weights cannot be read or are not a head's.
    """

    def __init__(
        self, weights: Weights, *, network: FeatureNetwork, device: str = "cpu", sha256: str | None = None
    ) -> None:
        self.head = aesthetic_head(read_state(weights, sha256=sha256)).float().to(device).eval().requires_grad_(False)
        self.network, self.device = network, device
        self.differentiable = hasattr(network, "embed")

    @torch.inference_mode()
    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        """See `Verifier.score`."""
        features = unit(self.network.features(images))
        check_count(conditions, len(images))
        return self.head(features.to(self.device)).squeeze(1).cpu()

    def differentiable_score(self, images: Tensor, conditions: Sequence[Condition]) -> Tensor:
        """See `Verifier.differentiable_score`; of networks whose embeddings have a graph."""
        features: Tensor = self.network.embed(images)  # type: ignore[attr-defined]
        return self.head(unit(features).to(self.device)).squeeze(1)
