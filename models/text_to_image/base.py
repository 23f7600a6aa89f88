"""A diffusers pipeline of rectified-flow kind as a `Generator`: all that SD3 and Flux have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sitsearch.models.autoencoder import LatentImages
from sitsearch.models.condition import Condition
from sitsearch.models.generator import Decoder, Rows, compiled
from sitsearch.models.guidance import Channels

#: Prompts whose embeddings are kept on the device. An SD3 prompt takes about 3 MB in half precision.
PROMPTS_KEPT = 64


class TextToImage(ABC):
    """A text-to-image pipeline of rectified-flow kind; see `Generator`.

    A prompt is encoded by the pipeline's own `encode_prompt`, alone (so that it gives the same numbers in any company)
    and padded to one length, and its embeddings are kept. Text beyond that length is cut off with a warning in the log.

    Args:
        pipeline: the diffusers pipeline, in its dtype; its parts are moved to `device`.
        device: where it runs.
        resolution: of the images in pixels, a side or (height, width); None is what the pipeline was trained on.
        negative_prompt: what `unconditional` says; the empty text is the usual "no condition".
        max_tokens: length to which the T5 tokens of a prompt are padded or cut, at most 512; None is the pipeline's
            default.
        embedded_guidance: guidance scale that a guidance-distilled transformer takes as an input (FLUX.1 [dev]: 3.5),
            on top of which classifier-free guidance is rarely wanted. Others ignore it.
        offload_encoders: keep the text encoders on the CPU, and on the device only while a new prompt is encoded: much
            memory (SD3's T5 takes 9.5 GB in half precision) for some seconds a new prompt.

    Attributes:
        shift: of the time grid (`Spec.shift`) that the pipeline's scheduler uses at this resolution.

    Raises:
        ValueError: the resolution does not fit the pipeline, or `max_tokens` is not in [1, 512].
    """

    interpolant = "Linear"
    prediction = "velocity"
    guided_channels: Channels = "all"
    #: Length of the T5 tokens where `max_tokens` is None: the default of the pipeline's own `__call__`.
    default_tokens: ClassVar[int]
    digest = ""
    compiled = False

    def __init__(
        self,
        pipeline: Any,
        *,
        device: str | torch.device = "cpu",
        resolution: int | tuple[int, int] | None = None,
        negative_prompt: str = "",
        max_tokens: int | None = None,
        embedded_guidance: float = 3.5,
        offload_encoders: bool = False,
    ) -> None:
        self.pipeline, self.device = pipeline, torch.device(device)
        self.negative_prompt, self.embedded_guidance = negative_prompt, embedded_guidance
        self.max_tokens = self.default_tokens if max_tokens is None else max_tokens
        if not 1 <= self.max_tokens <= 512:
            raise ValueError(f"max_tokens must be in [1, 512], not {self.max_tokens}")
        self.offload_encoders = offload_encoders
        self._embeddings: OrderedDict[str, Rows] = OrderedDict()

        self.net: nn.Module = pipeline.transformer.to(self.device).eval().requires_grad_(False)
        self.dtype: torch.dtype = pipeline.transformer.dtype
        self.parameters = sum(p.numel() for p in self.net.parameters())
        self.decoder: Decoder = LatentImages(pipeline.vae.to(self.device).eval().requires_grad_(False))
        self._encoders: list[nn.Module] = [
            part.eval().requires_grad_(False)
            for name, part in pipeline.components.items()
            if name.startswith("text_encoder") and part is not None
        ]
        for encoder in self._encoders:
            encoder.to("cpu" if offload_encoders else self.device)

        if resolution is None:
            resolution = self._trained_side() * pipeline.vae_scale_factor
        height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
        unit = pipeline.vae_scale_factor * self._patch()
        if height < unit or width < unit or height % unit or width % unit:
            raise ValueError(f"resolution must be positive multiples of {unit} pixels, not {height} x {width}")
        self.shape = (self._channels(), height // pipeline.vae_scale_factor, width // pipeline.vae_scale_factor)
        self.shift = self._scheduler_shift()

    # --- what differs between pipelines --------------------------------------------------------------------------

    @abstractmethod
    def _channels(self) -> int:
        """Channels of a latent."""

    @abstractmethod
    def _patch(self) -> int:
        """Side of the latent's square that makes one token."""

    @abstractmethod
    def _trained_side(self) -> int:
        """Side in latent pixels that the pipeline makes by default."""

    @abstractmethod
    def _encode(self, prompt: str) -> Rows:
        """A prompt's embeddings: the token sequence `[1, L, D]` and the pooled vector `[1, P]`."""

    @abstractmethod
    def _text_tokens(self) -> int:
        """L, the length of a prompt's token sequence."""

    @abstractmethod
    def _transform(self, net: nn.Module, x: Tensor, sigma: Tensor, tokens: Tensor, pooled: Tensor) -> Tensor:
        """The transformer's noise - data `[B, C, H, W]` of latents `[B, C, H, W]` at `sigma [B]` in [0, 1].

        `net` is the transformer, on the device of the tensors.
        """

    # --- the generator -------------------------------------------------------------------------------------------

    def rows(self, conditions: Sequence[Condition]) -> Rows:
        """Embeddings `[B, L, D]` and pooled `[B, P]` on the device; see `Generator.rows`.

        Rows of one prompt are views of the same memory.
        """
        prompts = [condition.prompt for condition in conditions if condition.prompt is not None]
        if not prompts or len(prompts) < len(conditions):
            raise ValueError("this model draws what a text says: every condition needs a prompt")
        if len(set(prompts)) == 1:
            return tuple(part.expand(len(prompts), *part.shape[1:]) for part in self._embedding(prompts[0]))
        distinct = {prompt: self._embedding(prompt) for prompt in dict.fromkeys(prompts)}
        return tuple(torch.cat(parts) for parts in zip(*(distinct[prompt] for prompt in prompts), strict=True))

    def unconditional(self, batch: int) -> Rows:
        """The negative prompt; see `Generator.unconditional`."""
        return self.rows([Condition(prompt=self.negative_prompt)] * batch)

    @torch.inference_mode()
    def evaluate(self, x: Tensor, t: Tensor, rows: Rows) -> Tensor:
        """See `Generator.evaluate`."""
        tokens, pooled = (row.to(self.device) for row in rows)
        velocity = -self._transform(self.net, x.to(self.device, self.dtype), 1 - t.to(self.device), tokens, pooled)
        return velocity.to(x.device, torch.float32)

    @cached_property
    def macs(self) -> int:
        """See `Generator`; text tokens are included. A transformer without weights is run on shapes alone."""
        transformer = self.pipeline.transformer
        config = transformer.config
        with torch.device("meta"):
            net = type(transformer).from_config(config)
            x, sigma = torch.zeros(1, *self.shape), torch.zeros(1)
            tokens = torch.zeros(1, self._text_tokens(), config.joint_attention_dim)
            pooled = torch.zeros(1, config.pooled_projection_dim)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self._transform(net, x, sigma, tokens, pooled)
        return int(counter.get_total_flops()) // 2

    def compile(self) -> None:
        """Compile the transformer; see `Generator.compile`."""
        net, self.net = self.net, compiled(self.net, self.device)
        self.compiled = self.net is not net

    def _embedding(self, prompt: str) -> Rows:
        """The embeddings of a prompt, from the cache if it was among the last `PROMPTS_KEPT`."""
        if prompt not in self._embeddings:
            with torch.no_grad(), self._encoders_at_hand():
                self._embeddings[prompt] = tuple(part.to(self.device, self.dtype) for part in self._encode(prompt))
            if len(self._embeddings) > PROMPTS_KEPT:
                self._embeddings.popitem(last=False)
        self._embeddings.move_to_end(prompt)
        return self._embeddings[prompt]

    @contextmanager
    def _encoders_at_hand(self) -> Iterator[None]:
        if not self.offload_encoders:
            yield
            return
        try:
            for encoder in self._encoders:
                encoder.to(self.device)
            yield
        finally:
            for encoder in self._encoders:
                encoder.to("cpu")

    def _scheduler_shift(self) -> float:
        config = self.pipeline.scheduler.config
        if not config.get("use_dynamic_shifting", False):
            return float(config.get("shift", 1.0))
        tokens = self.shape[1] * self.shape[2] // self._patch() ** 2
        slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
        mu = config.base_shift + slope * (tokens - config.base_image_seq_len)
        # e^mu / (e^mu + 1/sigma - 1) = s sigma / (1 + (s - 1) sigma) with s = e^mu; the linear kind has mu for e^mu.
        return float(math.exp(mu) if config.time_shift_type == "exponential" else mu)
