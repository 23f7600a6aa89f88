"""Text-conditioned flow models: a diffusers pipeline seen as a `Generator`.

Rectified-flow transformers (Esser et al. 2024, arXiv 2403.03206) are trained on x = (1 - sigma) data + sigma noise to
predict noise - data, and sample from sigma = 1 to 0. Ours is the `Linear` interpolant with t = 1 - sigma, whose
velocity is data - noise: the same path walked the other way, so `evaluate` negates the transformer's answer at 1 - t.

Only a pipeline's parts are used (tokenizers, text encoders, transformer, VAE); its loop and scheduler are not. The
samplers walk the grid that the pipeline walks when it is given `sigmas=linspace(1, 1 / steps, steps)`, with the shift
that `TextToImage.shift` names. That is what the Flux pipeline does by default; the SD3 pipeline's own default spends
the last of its steps between the scheduler's least sigma and 0, which ours does not.
"""

from sitsearch.models.text_to_image.base import TextToImage
from sitsearch.models.text_to_image.loading import PIPELINES, load_text_to_image

__all__ = ["PIPELINES", "TextToImage", "load_text_to_image"]
