"""The kinds of verifier that a card can name: the built-in ones and those of installed plug-ins.

A plug-in is a Python package with an entry point in the group `sitsearch.verifiers`, `kind = "module:Class"`. Its class
derives from `sitsearch.models.verifiers.base.Verifier` and is called as the built-in ones are: (weights, *, device,
**options).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, create_model

from sitsearch.models.errors import BadWeights, MissingLibrary
from sitsearch.models.generator import Generator
from sitsearch.models.verifiers.base import ClassNetwork, FeatureNetwork, Verifier, Weights
from sitsearch.models.verifiers.errors import BadOptions, PluginError, UnknownKind

GROUP = "sitsearch.verifiers"

#: kind -> where its class is; imported when first asked for, for some bring large libraries. Adding one is a file and a
#: line here.
_BUILT_IN = {
    "aesthetic": "aesthetic:AestheticPredictor",
    "clip_score": "clip:ClipScore",
    "clip_zero_shot": "clip:ClipZeroShot",
    "contrast": "statistics:Contrast",
    "dinov2": "dinov2:Dinov2Classifier",
    "fid_oracle": "fid_oracle:FidOracle",
    "glyph_auditor": "auditor_net:GlyphAuditor",
    "glyph_classifier": "classifier:GlyphClassifier",
    "hpsv2": "hpsv2:HPSv2",
    "image_reward": "image_reward:ImageReward",
    "inception": "inception:InceptionV3",
    "inception_oracle": "inception_oracle:InceptionOracle",
    "likelihood": "likelihood:Likelihood",
    "pickscore": "pickscore:PickScore",
    "reconstruction": "likelihood:Reconstruction",
    "remote": "remote:RemoteScorer",
    "sharpness": "statistics:Sharpness",
    "similarity": "similarity:SelfSimilarity",
    "vlm_judge": "vlm_judge:VlmJudge",
}


class VerifierKinds(Mapping[str, type[Verifier]]):
    """Kind -> class; the class is imported when asked for.

    Raises:
        PluginError: a plug-in takes a name that is taken, or cannot be imported.
        MissingLibrary: a library that the kind is built on is not installed.
        KeyError: no kind of that name.
    """

    def __getitem__(self, kind: str) -> type[Verifier]:
        point = self._points()[kind]
        try:
            found: type[Verifier] = point.load()
        except (ImportError, AttributeError) as error:
            refusal = MissingLibrary if kind in _BUILT_IN else PluginError
            raise refusal(f"verifier kind {kind!r} ({point.value}) cannot be imported: {error}") from error
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._points()))

    def __len__(self) -> int:
        return len(self._points())

    def __contains__(self, kind: object) -> bool:
        return kind in self._points()

    def plugins(self) -> tuple[str, ...]:
        """The kinds that installed plug-ins bring."""
        return tuple(kind for kind in self if kind not in _BUILT_IN)

    @staticmethod
    def _points() -> dict[str, EntryPoint]:
        points = {
            kind: EntryPoint(kind, f"sitsearch.models.verifiers.{place}", GROUP) for kind, place in _BUILT_IN.items()
        }
        for point in entry_points(group=GROUP):
            if point.name in points:
                raise PluginError(
                    f"the plug-in {point.value!r} offers a verifier kind {point.name!r}, "
                    f"which {points[point.name].value!r} is already"
                )
            points[point.name] = point
        return points


#: Every kind that a card can name.
VERIFIER_KINDS = VerifierKinds()


class Part(BaseModel):
    """A network inside a verifier, as a table of its card: a kind, its weights and its own options."""

    model_config = ConfigDict(extra="allow", frozen=True)
    kind: str = Field(description="a verifier kind that can be such a network")
    weights: str | None = Field(None, description="its file or folder, as in a card")


class ModelName(RootModel[str]):
    """Name of a model card, for a verifier that asks a generator."""


#: What stands in a card for a parameter that is a network.
_IN_CARDS: dict[Any, Any] = {FeatureNetwork: Part, ClassNetwork: Part, Generator: ModelName}


@cache
def _options_model(kind: str, verifier: type[Verifier]) -> type[BaseModel]:
    hints = get_type_hints(verifier.__init__, include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(verifier).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name != "device":
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[name] = (_IN_CARDS.get(hints[name], hints[name]), default)
    return create_model(f"{kind}_options", __config__=ConfigDict(extra="forbid", frozen=True), **fields)


def _kind(kind: str) -> type[Verifier]:
    if kind not in VERIFIER_KINDS:
        raise UnknownKind(f"no verifier kind {kind!r}; there are {', '.join(VERIFIER_KINDS)}")
    return VERIFIER_KINDS[kind]


def options_model(kind: str) -> type[BaseModel]:
    """The options of a kind, read off the keyword-only parameters of its class.

    Raises:
        UnknownKind: no kind of that name.
        PluginError, MissingLibrary: see `VerifierKinds`.
    """
    return _options_model(kind, _kind(kind))


def options_schema(kind: str) -> dict[str, Any]:
    """The JSON schema of a kind's options; raises as `options_model` does."""
    return options_model(kind).model_json_schema()


def title_of(kind: str) -> str:
    """One line for people: the first of its class's docstring; raises as `options_model` does."""
    return (inspect.getdoc(_kind(kind)) or kind).splitlines()[0].rstrip(".")


def stands_alone(kind: str) -> bool:
    """Whether a kind needs no card: neither weights nor an option that must be set; raises as `options_model`."""
    takes = inspect.signature(_kind(kind)).parameters["weights"]
    required = any(field.is_required() for field in options_model(kind).model_fields.values())
    return takes.default is None and not required


def build_verifier(
    kind: str,
    weights: Weights | None = None,
    *,
    device: str = "cpu",
    options: Mapping[str, Any] | None = None,
    root: Path = Path(),
    load_generator: Callable[[str], Generator] | None = None,
) -> Verifier:
    """A verifier of a kind, with its options checked.

    Args:
        kind: name of the kind.
        weights: what its class reads; None for a kind without.
        device: where it runs.
        options: of the kind; see `options_model`.
        root: folder that the weights of its inner networks are relative to.
        load_generator: gives the model of a card's name, for kinds that ask a generator.

    Raises:
        UnknownKind: no kind of that name.
        BadOptions: an option that the kind does not have, or of a value it refuses, or the weights are missing.
        PluginError, MissingLibrary: see `VerifierKinds`.
        BadWeights: the weights cannot be read, or do not fit.
    """
    verifier, model = _kind(kind), options_model(kind)
    try:
        checked = model(**(options or {}))
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise BadOptions(f"options of verifier kind {kind!r}: {reasons}") from error
    if weights is None and inspect.signature(verifier).parameters["weights"].default is inspect.Parameter.empty:
        raise BadOptions(f"verifier kind {kind!r} needs weights")

    def loaded(value: Any) -> Any:
        if isinstance(value, Part):
            inside = None if value.weights is None else root / value.weights
            return build_verifier(value.kind, inside, device=device, options=value.__pydantic_extra__, root=root)
        if isinstance(value, ModelName):
            if load_generator is None:
                raise BadOptions(f"verifier kind {kind!r} asks a generator, and none can be loaded here")
            return load_generator(value.root)
        return value

    values = {name: loaded(getattr(checked, name)) for name in model.model_fields}
    try:
        return verifier(weights, device=device, **values)  # type: ignore[call-arg]
    except (torch.OutOfMemoryError, torch.AcceleratorError):  # RuntimeErrors too, but the weights are not at fault
        raise
    except RuntimeError as error:  # what load_state_dict raises
        raise BadWeights(f"{weights} does not fit verifier kind {kind!r}: {error}") from error
