"""The cards of generators: what a card may say, and what can be known of a model without loading it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from sitsearch.models.card_files import CardFile, read_card, reasons
from sitsearch.models.errors import BadCard, UnknownCard
from sitsearch.models.guidance import Channels
from sitsearch.models.loading.checkpoint import read_shapes
from sitsearch.models.loading.sit import config_of
from sitsearch.models.sit import SiTConfig


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SiTTable(_Table):
    """`[network]` of a SiT. What it says of the shape must hold for the weights; the rest is read off them."""

    kind: Literal["sit"]
    weights: str = Field(description="file or folder, see `sitsearch.models.loading.checkpoint`")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        None, description="of the weights, if they are a file that `[[files]]` does not name"
    )
    input_size: PositiveInt | None = None
    patch_size: PositiveInt | None = None
    in_channels: PositiveInt | None = None
    hidden_size: PositiveInt | None = None
    depth: PositiveInt | None = None
    num_heads: PositiveInt | None = None
    num_classes: PositiveInt | None = None
    learn_sigma: bool | None = None

    @property
    def shape(self) -> dict[str, Any]:
        """What the card says of the network's shape: fields of `SiTConfig`."""
        return self.model_dump(exclude={"kind", "weights", "sha256"}, exclude_none=True)


class PipelineTable(_Table):
    """`[network]` of a text-to-image pipeline; see `sitsearch.models.text_to_image`."""

    kind: Literal["text_to_image"]
    weights: str = Field(description="folder of the pipeline, in the diffusers format")
    resolution: PositiveInt = Field(description="side of the images in pixels")
    without: tuple[str, ...] = ()
    negative_prompt: str = ""
    max_tokens: PositiveInt | None = None
    embedded_guidance: float = 3.5
    offload_encoders: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of `load_text_to_image`."""
        return self.model_dump(exclude={"kind", "weights"})


class FlowTable(_Table):
    """`[flow]`: what the network was trained to predict."""

    interpolant: Literal["Linear", "GVP", "VP"] = "Linear"
    prediction: Literal["velocity", "score", "noise"] = "velocity"
    guided_channels: Channels = "all"


class PixelsTable(_Table):
    """`[decoder]` of a model of pixels."""

    kind: Literal["pixels"] = "pixels"


class AutoencoderTable(_Table):
    """`[decoder]` of a model of latents; see `sitsearch.models.autoencoder`."""

    kind: Literal["autoencoder_kl"]
    weights: str = Field(description="folder of the VAE, in the diffusers format")
    downsampling: PositiveInt = Field(8, description="pixels a latent cell, along one side")
    batch: PositiveInt = Field(1, description="samples of one pass")
    tiling: bool = False


class ClassesTable(_Table):
    """`[classes]`: the names by index, said in one of three ways, and a text made of a name."""

    characters: str | None = Field(None, description="one class a character")
    names: tuple[str, ...] | None = None
    source: Literal["imagenet"] | None = Field(None, description="the 1000 classes of ILSVRC 2012, in order")
    template: str = "{}"

    @model_validator(mode="after")
    def _one_way(self) -> ClassesTable:
        if sum(way is not None for way in (self.characters, self.names, self.source)) != 1:
            raise ValueError("give one of `characters`, `names` and `source`")
        return self

    @property
    def all_names(self) -> tuple[str, ...]:
        """The class names by index."""
        return imagenet_classes() if self.source else tuple(self.characters or self.names or ())


class ModelTable(_Table):
    """A generator's card."""

    name: str
    title: str
    license: str
    network: Annotated[SiTTable | PipelineTable, Field(discriminator="kind")]
    flow: FlowTable = FlowTable()
    decoder: Annotated[PixelsTable | AutoencoderTable, Field(discriminator="kind")] = PixelsTable()
    classes: ClassesTable | None = None
    sampler: dict[str, Any]

    @model_validator(mode="after")
    def _told_by(self) -> ModelTable:
        if isinstance(self.network, SiTTable) and self.classes is None:
            raise ValueError("a SiT's card names its classes: [classes] is missing")
        return self


class ModelCard:
    """A generator's card.

    What it says is known at once; what has to be read off the weights (where the card leaves it out) is read when asked
    for, and raises `BadWeights` where they are missing. No weights are loaded for any of it.

    Attributes:
        file: the card's file, and where its weights are.
        table: all that it says.
        name: by which requests ask for it.
        title: one line for people.
        license: SPDX identifier of the weights' licence.
        weights: the network's file or folder, whether or not it is there.
        interpolant: `Linear`, `GVP` or `VP`.
        prediction: what the network predicts: `velocity`, `score` or `noise`.
        guided_channels: `all`, or `first3` as the published checkpoints were sampled.
        condition: what the model is told by: `class` or `prompt`.
        classes: class names, by index; empty for a model that reads prompts.
        template: makes a text of a class name, for verifiers that read text.
        sampler: default method, steps and guidance scale.
    """

    def __init__(self, file: CardFile, table: ModelTable) -> None:
        self.file, self.table = file, table
        self.name, self.title, self.license = table.name, table.title, table.license
        self.weights: Path = file.base / Path(table.network.weights).expanduser()
        self.interpolant: str = table.flow.interpolant
        self.prediction: str = table.flow.prediction
        self.guided_channels: Channels = table.flow.guided_channels
        self.condition: Literal["class", "prompt"] = "class" if table.classes else "prompt"
        self.classes: tuple[str, ...] = table.classes.all_names if table.classes else ()
        self.template: str = table.classes.template if table.classes else "{}"
        self.sampler: dict[str, Any] = table.sampler

    @cached_property
    def network(self) -> SiTConfig:
        """The SiT's shape.

        Raises:
            BadCard: the model is no SiT, or the card's shape is not one that a SiT can have.
            BadWeights: the card leaves some of it out, and the weights are missing or of another shape.
        """
        table = self.table.network
        if not isinstance(table, SiTTable):
            raise BadCard(f"{self.name!r} is a {table.kind} model, not a SiT")
        if table.shape.keys() < {*SiTConfig.__dataclass_fields__}:
            return config_of(read_shapes(self.file.locate(table.weights)), table.shape)
        try:
            return SiTConfig(**table.shape)
        except ValueError as error:
            raise BadCard(f"the card {self.file.path}: network: {error}") from error

    @property
    def image_size(self) -> int:
        """Side of the images in pixels; raises as `network` does for a SiT."""
        network, decoder = self.table.network, self.table.decoder
        if isinstance(network, PipelineTable):
            return network.resolution
        return self.network.input_size * (decoder.downsampling if isinstance(decoder, AutoencoderTable) else 1)


def model_card(name: str) -> ModelCard:
    """The generator card `name`.

    Raises:
        UnknownCard: there is none, or it is a verifier's.
        BadCard: it is not as `ModelTable` says.
    """
    file = read_card(name)
    if "kind" in file.table:
        raise UnknownCard(f"{name!r} is a verifier's card, not a model's")
    try:
        return ModelCard(file, ModelTable.model_validate(file.table))
    except ValidationError as error:
        raise BadCard(f"the card {file.path}: {reasons(error)}") from error


def imagenet_classes() -> tuple[str, ...]:
    """The 1000 class names of ILSVRC 2012, each once, in the order that class-conditional ImageNet models use."""
    # Imported here because it takes seconds, and only cards of ImageNet models ask for it.
    from torchvision.models import ResNet50_Weights  # type: ignore[import-untyped]

    return tuple(ResNet50_Weights.IMAGENET1K_V2.meta["categories"])
