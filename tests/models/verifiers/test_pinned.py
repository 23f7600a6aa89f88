"""Verifiers from files of `torch.save`, which are read only under a checksum; and weights that do not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sitsearch.models.catalog import ROOT, load_verifier
from sitsearch.models.checksums import sha256_of, write_sum
from sitsearch.models.errors import BadCard, BadWeights, ChecksumMismatch
from sitsearch.models.loading.checkpoint import read_checkpoint
from sitsearch.models.verifiers.glyph_net import GlyphNet
from sitsearch.models.verifiers.registry import VERIFIER_KINDS, options_model
from sitsearch.models.verifiers.weights import read_state
from tests.models.verifiers.tiny import (
    NAMES,
    auditor_state,
    hpsv2_checkpoint,
    image_reward_folder,
    inception_state,
    laion_head,
)

CLASSIFIER = ROOT / "checkpoints" / "glyph_classifier.safetensors"
TINY_CLIP = {"kind": "hpsv2", "weights": "clip.pt", "architecture": "tiny-hps"}


def _save(state: dict[str, torch.Tensor], path: Path) -> None:
    torch.save(state, path)


def _clip(folder: Path) -> None:
    path, _ = hpsv2_checkpoint(folder / "source")
    shutil.move(path, folder / "clip.pt")
    shutil.rmtree(folder / "source")


def _aesthetic(folder: Path) -> None:
    _save({f"layers.{name}": value for name, value in laion_head(24).state_dict().items()}, folder / "head.pth")
    _clip(folder)


def _image_reward(folder: Path) -> None:
    image_reward_folder(folder / "reward")


#: kind -> writes its files, and what its card says of them. Every kind that reads weights through `read_state`.
PICKLED: dict[str, tuple[Callable[[Path], None], dict[str, Any]]] = {
    "aesthetic": (_aesthetic, {"weights": "head.pth", "network": TINY_CLIP}),
    "clip_score": (_clip, {"weights": "clip.pt", "architecture": "tiny-hps"}),
    "clip_zero_shot": (_clip, {"weights": "clip.pt", "architecture": "tiny-hps", "classes": NAMES}),
    "glyph_auditor": (
        lambda folder: _save(auditor_state(), folder / "net.pt"),
        {"weights": "net.pt", "widths": (8, 16), "depths": (1, 1)},
    ),
    "glyph_classifier": (lambda folder: _save(read_checkpoint(CLASSIFIER), folder / "net.pt"), {"weights": "net.pt"}),
    "hpsv2": (_clip, {"weights": "clip.pt", "architecture": "tiny-hps"}),
    "image_reward": (_image_reward, {"weights": "reward"}),
    "inception": (lambda folder: _save(inception_state(), folder / "net.pth"), {"weights": "net.pth"}),
    "similarity": (_clip, {"network": TINY_CLIP}),
}


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {toml(each)}" for name, each in value.items()) + "}"
    return json.dumps(value)


class Card:
    """The card `mine` of a kind, in `cards`, and its files, in `base`; `pins` is file to SHA-256, "" for none."""

    def __init__(self, kind: str, cards: Path, base: Path) -> None:
        self.path, self.base = cards / "mine.toml", base
        write, self.said = PICKLED[kind]
        self.kind = kind
        write(base)
        files = [path for path in base.rglob("*") if path.is_file()]
        self.right = {str(path.relative_to(base)): sha256_of(path) for path in sorted(files)}
        self.pickles = [path for path in self.right if path.endswith((".pt", ".pth"))]

    def write(self, pins: dict[str, str], **options: Any) -> None:
        said = {"name": "mine", "title": "t", "kind": self.kind, "models": [], **self.said, **options}
        lines = [f"{name} = {toml(value)}" for name, value in said.items()]
        for path, digest in pins.items():
            lines += ["[[files]]", f'path = "{path}"', f'url = "http://localhost/{path}"', f'sha256 = "{digest}"']
        self.path.write_text("\n".join(lines) + "\n")

    def unpinned(self, *paths: str) -> dict[str, str]:
        return self.right | dict.fromkeys(paths, "")


@pytest.fixture(scope="module", params=PICKLED)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Card]:
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "cards").mkdir()
    (folder / "weights" / "mine").mkdir(parents=True)
    yield Card(request.param, folder / "cards", folder / "weights" / "mine")
    shutil.rmtree(folder / "weights")


@pytest.fixture
def card(written: Card, monkeypatch: pytest.MonkeyPatch) -> Card:
    monkeypatch.setenv("SITSEARCH_CARDS_DIR", str(written.path.parent))
    monkeypatch.setenv("SITSEARCH_WEIGHTS_DIR", str(written.base.parent))
    return written


def test_every_kind_that_takes_a_checksum_is_here() -> None:
    assert {kind for kind in VERIFIER_KINDS if "sha256" in options_model(kind).model_fields} <= PICKLED.keys()


def test_a_pickle_is_read_if_the_cards_files_pin_it(card: Card) -> None:
    card.write(card.right)
    load_verifier("mine")
    for pickle in card.pickles:
        card.write(card.right | {pickle: "0" * 64})
        with pytest.raises(ChecksumMismatch, match=rf"{pickle} is refused: .*, but 0+ was expected"):
            load_verifier("mine")


def test_a_pickle_that_nobody_vouches_for_is_refused_with_what_to_do(card: Card) -> None:
    for pickle in card.pickles:
        card.write(card.unpinned(pickle))
        with pytest.raises(
            BadWeights,
            match=rf"{pickle} is not safetensors, .* its SHA-256 is known: fetch it with `sitsearch models pull mine`, "
            rf"give `sha256` in .*mine\.toml \(this file's is {card.right[pickle]}\), or convert it",
        ):
            load_verifier("mine")


def test_a_pickle_is_read_if_a_download_noted_its_checksum(card: Card) -> None:
    card.write(card.unpinned(*card.pickles))
    for pickle in card.pickles:
        write_sum(card.base, pickle, card.right[pickle])
    try:
        load_verifier("mine")
        write_sum(card.base, card.pickles[0], "0" * 64)
        with pytest.raises(ChecksumMismatch):
            load_verifier("mine")
    finally:
        (card.base / "SHA256SUMS").unlink()


@pytest.mark.parametrize("written", ["aesthetic", "clip_score", "hpsv2", "image_reward"], indirect=True)
def test_the_option_sha256_is_the_same_check(card: Card) -> None:
    own = next(path for path in card.pickles if not (card.kind == "aesthetic" and path == "clip.pt"))
    card.write(card.unpinned(own), sha256=card.right[own])
    load_verifier("mine")
    for pins in (card.unpinned(own), card.right):  # an option that is wrong is not outvoted by the files
        card.write(pins, sha256="0" * 64)
        with pytest.raises(ChecksumMismatch, match=own):
            load_verifier("mine")


@pytest.mark.parametrize("written", ["similarity"], indirect=True)
def test_a_card_with_nothing_but_an_inner_network_says_how_to_get_its_files(card: Card) -> None:
    card.write(card.right | {"more.pt": ""})
    with pytest.raises(BadWeights, match=r"more\.pt is missing; run `sitsearch models pull mine`"):
        load_verifier("mine")


@pytest.mark.parametrize("written", ["clip_score"], indirect=True)
def test_what_one_card_pins_does_not_count_for_another(card: Card) -> None:
    card.write(card.right, range=[0.0, 2.0])
    with pytest.raises(BadCard, match="range"):  # even if the other's loading failed
        load_verifier("mine")
    with pytest.raises(BadWeights, match="is known: give"):
        read_state(card.base / "clip.pt")
    other = card.path.with_name("other.toml")
    other.write_text(
        f'name = "other"\ntitle = "t"\nmodels = []\nkind = "clip_score"\narchitecture = "tiny-hps"\n'
        f'weights = "{card.base / "clip.pt"}"\n'
    )
    with pytest.raises(BadWeights, match=r"is known: give `sha256` in .*other\.toml"):
        load_verifier("other")


def test_weights_that_do_not_fit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITSEARCH_CARDS_DIR", str(tmp_path))
    (tmp_path / "mine.toml").write_text(
        f'name = "mine"\ntitle = "t"\nkind = "glyph_classifier"\nmodels = []\nwidth = 8\nweights = "{CLASSIFIER}"\n'
    )
    with pytest.raises(BadWeights, match=r"(?s)does not fit verifier kind 'glyph_classifier': .*size mismatch"):
        load_verifier("mine")


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), torch.AcceleratorError("CUDA error: an illegal access")]
)
@pytest.mark.parametrize("name", ["classifier", "fid"])  # alone, and inside another
def test_a_device_that_fails_is_not_the_weights_fault(
    monkeypatch: pytest.MonkeyPatch, error: RuntimeError, name: str
) -> None:
    def failing(_: nn.Module, __: Any) -> nn.Module:
        raise error

    monkeypatch.setattr(GlyphNet, "to", failing)
    with pytest.raises(type(error), match="CUDA"):
        load_verifier(name)
