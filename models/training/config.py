"""What defines a training run, as read from its TOML file. Every field is also a flag, `--section.field VALUE`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sitsearch.models.errors import ModelError
from sitsearch.models.sit import SiTConfig


class BadConfig(ModelError):
    """A training run's settings do not fit each other, its data or its earlier steps."""


class Section(BaseModel):
    """A table of the file. Immutable; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSection(Section):
    """The network: a preset of the paper, or the four dimensions. Its input and its classes are the data's."""

    preset: str | None = Field(None, description="S/2 ... XL/8")
    patch_size: int | None = Field(None, ge=1)
    hidden_size: int | None = Field(None, ge=4)
    depth: int | None = Field(None, ge=1)
    num_heads: int | None = Field(None, ge=1)
    learn_sigma: bool = Field(False, description="twice the output channels, as the published checkpoints have")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = [d is not None for d in (self.patch_size, self.hidden_size, self.depth, self.num_heads)]
        if any(given) if self.preset else not all(given):
            raise ValueError("give either preset, or all of patch_size, hidden_size, depth and num_heads")
        return self

    def network(self, shape: tuple[int, int, int], classes: int) -> SiTConfig:
        """The network for states of that `(C, H, W)` and so many classes.

        Raises:
            BadConfig: the states are not square, or a size does not divide another.
        """
        channels, height, width = shape
        if height != width:
            raise BadConfig(f"a SiT takes square inputs, not {height} x {width}")
        rest: dict[str, Any] = {
            "input_size": height,
            "in_channels": channels,
            "num_classes": classes,
            "learn_sigma": self.learn_sigma,
        }
        try:
            if self.preset:
                return SiTConfig.preset(self.preset, **rest)
            return SiTConfig(**self.model_dump(include={"patch_size", "hidden_size", "depth", "num_heads"}), **rest)
        except ValueError as error:
            raise BadConfig(str(error)) from error


class DataSection(Section):
    """What to train on; see data.py for the kinds."""

    kind: Literal["folder", "npz", "glyphs"] = Field("folder", description="folder, npz or glyphs")
    path: Path = Field(description="a folder with one sub-folder of images a class, or a file")
    size: int = Field(256, ge=1, description="side to which a folder's images are cut and scaled, in pixels")
    flip: bool = Field(False, description="mirror every other image (not for latents)")
    order: Literal["shuffled", "replacement"] = Field(
        "shuffled", description="every sample once an epoch, or each draw independent"
    )
    workers: int = Field(0, ge=0, description="processes that read ahead; 0 reads in the training process")


class FlowSection(Section):
    """The interpolant and the loss (SiT, arXiv 2401.08740)."""

    interpolant: Literal["Linear", "GVP", "VP"] = "Linear"
    prediction: Literal["velocity", "score", "noise"] = "velocity"
    weighting: Literal["none", "velocity", "likelihood"] = Field("none", description="of a score or noise loss")
    eps: float | None = Field(None, ge=0, lt=0.5, description="distance kept from singular ends; none is the paper's")
    times: Literal["uniform", "logit_normal"] = "uniform"
    times_mean: float = Field(0.0, description="of the logit")
    times_std: float = Field(1.0, gt=0, description="of the logit")
    times_uniform: float = Field(0.0, ge=0, le=1, description="share of uniform times among the logit-normal ones")
    class_dropout: float = Field(0.1, ge=0, le=1, description="share of labels replaced by the null class")
    contrast: float = Field(0.0, ge=0, description="weight of the contrastive term, arXiv 2506.05350")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.prediction == "velocity" and self.weighting != "none":
            raise ValueError("the velocity loss has no weighting: it is for score and noise")
        if self.prediction != "velocity" and self.contrast:
            raise ValueError("the contrastive term is for velocity")
        return self


class AlignSection(Section):
    """Representation alignment (REPA, arXiv 2410.06940): a middle block predicts an encoder's features of the data."""

    encoder: Literal["glyph_classifier"]
    weights: Path
    depth: int = Field(ge=1, description="the block, counted from 1")
    weight: float = Field(0.5, ge=0)


class OptimizerSection(Section):
    """AdamW, or Muon for the attention and MLP matrices with AdamW for the rest; warmed up, held, decayed to zero."""

    kind: Literal["adamw", "muon"] = "adamw"
    lr: float = Field(1e-4, gt=0)
    betas: tuple[float, float] = Field((0.9, 0.999), description="of AdamW")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW")
    muon_weight_decay: float = Field(0.01, ge=0)
    clip: float | None = Field(None, gt=0, description="largest norm of the gradient")
    warmup: int = Field(0, ge=0, description="steps over which the rate rises from zero")
    decay: int = Field(0, ge=0, description="last steps, over which it falls to zero")


class TrainSection(Section):
    """Length, batch, precision and what is written when."""

    steps: int = Field(400_000, ge=1)
    batch: int = Field(256, ge=1, description="samples a step, over all processes")
    accumulate: int = Field(1, ge=1, description="parts in which a process computes its share of the batch")
    seed: int = Field(0, ge=0, lt=2**64)
    ema: float = Field(0.9999, ge=0, lt=1)
    ema_warmup: bool = Field(False, description="let the average forget faster in the first steps")
    precision: Literal["float32", "bf16", "bf16-copy"] = Field(
        "float32", description="bf16: mixed by autocast. bf16-copy: all in bfloat16 but the weights that take the step"
    )
    compile: bool = False
    init_from: Path | None = Field(None, description="checkpoint of the same network to begin with")
    log_every: int = Field(100, ge=1)
    save_every: int = Field(5000, ge=1)


class CardSection(Section):
    """What the model card says that training does not know."""

    name: str = Field("model", pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str = ""
    license: str = "unknown"
    vae: str = Field("vae", description="folder of the autoencoder of latents, in the diffusers format")
    template: str = Field("a picture of {}", description="makes a text of a class name")
    method: str = "heun"
    steps: int = Field(25, ge=1)
    guidance: float = Field(1.5, ge=0)


class TrainingConfig(Section):
    """The whole file."""

    model: ModelSection
    data: DataSection
    flow: FlowSection = FlowSection()
    align: AlignSection | None = None
    optimizer: OptimizerSection = OptimizerSection()
    train: TrainSection = TrainSection()
    card: CardSection = CardSection()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.optimizer.warmup + self.optimizer.decay > self.train.steps:
            raise ValueError(f"warmup and decay are longer than the run of {self.train.steps} steps")
        if self.align and self.model.depth and self.align.depth > self.model.depth:
            raise ValueError(f"there is no block {self.align.depth} to align among {self.model.depth}")
        return self


def read_config(path: Path | None, overrides: dict[str, str]) -> TrainingConfig:
    """The file's settings, if there is one, changed by `section.field` overrides in TOML notation (or bare strings).

    Raises:
        pydantic.ValidationError (a ValueError): a setting is missing, unknown or out of its range.
        OSError, tomllib.TOMLDecodeError (a ValueError): the file cannot be read.
    """
    raw = tomllib.loads(path.read_text()) if path else {}
    for key, text in overrides.items():
        section, _, name = key.partition(".")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        raw.setdefault(section, {})[name] = value
    return TrainingConfig.model_validate({"model": {}, "data": {}} | raw)
