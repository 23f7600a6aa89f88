"""Cards and the weights behind them."""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sitsearch.models import catalog
from sitsearch.models.condition import Condition
from sitsearch.models.download import pull
from sitsearch.models.errors import BadCard, BadWeights, ChecksumMismatch, UnknownCard
from sitsearch.models.generator import Pixels
from sitsearch.models.model_card import AutoencoderTable, imagenet_classes
from sitsearch.models.verifiers.registry import VERIFIER_KINDS
from tests.models.file_server import FileServer, serve
from tests.models.tiny_sit import TINY, save_sharded, tiny_sit, train_checkpoint
from tests.models.tiny_vae import save_vae

CARDS = {path.stem: path.read_text() for path in catalog.CARDS.glob("*.toml")}
MODELS = [name for name, text in CARDS.items() if "kind" not in tomllib.loads(text)]
BUNDLED = [name for name in MODELS if "[[files]]" not in CARDS[name]]
VERIFIERS = [name for name in CARDS if name not in MODELS]


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of cards beside the bundled ones; fetched weights go to `tmp_path / "weights"`."""
    folder = tmp_path / "cards"
    folder.mkdir()
    monkeypatch.setenv("SITSEARCH_CARDS_DIR", str(folder))
    monkeypatch.setenv("SITSEARCH_WEIGHTS_DIR", str(tmp_path / "weights"))
    return folder


def sit_card(name: str, network: str, *, decoder: str = "", files: str = "") -> str:
    """A card that leaves the network's shape out."""
    return f"""
name = "{name}"
title = "a tiny SiT"
license = "Apache-2.0"
{files}
[network]
kind = "sit"
{network}
[flow]
interpolant = "GVP"
prediction = "noise"
guided_channels = "first3"
{decoder}
[classes]
names = ["ant", "bee", "cat", "dog", "eel"]
template = "a photo of a {{}}"
[sampler]
method = "heun"
steps = 2
guidance = 1.0
"""


@pytest.mark.parametrize("name", MODELS)
def test_every_model_card_is_well_formed_and_counts_its_classes(name: str) -> None:
    card = catalog.model_card(name)
    assert card.name == name and len(card.classes) == card.network.num_classes == len(set(card.classes))
    assert card.template.format("x") != card.template


@pytest.mark.parametrize("name", BUNDLED)
def test_every_bundled_model_loads_and_is_what_its_card_says(name: str) -> None:
    card, generator = catalog.model_card(name), catalog.load_generator(name)
    assert generator.shape == (card.network.in_channels, card.network.input_size, card.network.input_size)
    assert generator.macs == card.network.macs
    assert generator.decoder.decode(torch.zeros(1, *generator.shape)).shape[1] == card.image_size
    rows = generator.rows([Condition(class_index=0), Condition(class_index=len(card.classes) - 1)])
    out = generator.evaluate(torch.zeros(2, *generator.shape), torch.tensor([0.1, 0.9]), rows)
    assert out.shape == (2, *generator.shape) and bool(out.isfinite().all())


@pytest.mark.parametrize("name", VERIFIERS)
def test_every_verifier_card_names_a_known_kind_and_known_models(name: str) -> None:
    card = catalog.verifier_card(name)
    assert card.kind in VERIFIER_KINDS and set(card.models) <= set(MODELS)
    catalog.load_verifier(name)


def test_the_published_model_is_described_without_its_weights(cards: Path) -> None:
    card = catalog.model_card("sit-xl-2-256")
    assert (card.image_size, card.condition, card.guided_channels) == (256, "class", "first3")
    assert round(card.network.macs / 1e9) == 119  # the paper's Table 1 and README
    assert card.classes == imagenet_classes() and len(card.classes) == 1000
    # the samples that the authors' sample.py draws
    assert [card.classes[i] for i in (207, 360, 387)] == ["golden retriever", "otter", "lesser panda"]
    assert isinstance(card.table.decoder, AutoencoderTable)
    with pytest.raises(BadWeights, match=r"run `sitsearch models pull sit-xl-2-256` \(SITSEARCH_WEIGHTS_DIR"):
        catalog.load_generator("sit-xl-2-256")


def test_an_unknown_card_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownCard, match=r"no card named .nope.; there are .*glyphs"):
        catalog.load_generator("nope")
    with pytest.raises(UnknownCard, match="is a verifier's card"):
        catalog.model_card("classifier")
    with pytest.raises(UnknownCard, match="is a model's card"):
        catalog.verifier_card("glyphs")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """A checkpoint of `train.py` and a VAE, as a server offers them."""
    folder = tmp_path_factory.mktemp("published")
    torch.save(train_checkpoint(tiny_sit(seed=1), tiny_sit()), folder / "net.pt")
    save_vae(folder / "vae")
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with serve(files, etags={name: f'"{name}"' for name in files}) as server:
        yield server


@pytest.fixture
def far(cards: Path, published: FileServer) -> Path:
    """The card of what `published` offers; nothing is pinned."""
    files = "".join(f'[[files]]\npath = "{path}"\nurl = "{published.url}/{path}"\n' for path in published.files)
    decoder = '[decoder]\nkind = "autoencoder_kl"\nweights = "vae"\n'
    (cards / "far.toml").write_text(sit_card("far", 'weights = "net.pt"', decoder=decoder, files=files))
    return cards / "far.toml"


def test_a_published_latent_model_is_pulled_loaded_evaluated_and_decoded(far: Path, published: FileServer) -> None:
    published.drops = [10_000]
    assert all(each.fetched for each in pull("far"))
    card, generator = catalog.model_card("far"), catalog.load_generator("far")
    assert card.network == TINY and card.image_size == 64 and card.network.macs == generator.macs
    assert (generator.interpolant, generator.prediction, generator.guided_channels) == ("GVP", "noise", "first3")
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([0.2, 0.7])
    found = generator.evaluate(x, t, generator.rows([Condition(class_index=0), Condition(class_index=4)]))
    with torch.inference_mode():
        assert torch.equal(found, tiny_sit()(x, t, torch.tensor([0, 4])))
    assert generator.decoder.decode(x).shape == (2, 64, 64, 3)


def test_half_precision_is_the_networks_and_not_the_decoders(far: Path) -> None:
    pull("far")
    whole, half = catalog.load_generator("far"), catalog.load_generator("far", dtype=torch.bfloat16)
    x = torch.randn(1, *half.shape)
    assert torch.equal(half.decoder.decode(x), whole.decoder.decode(x))
    rows = half.rows([Condition(class_index=1)])
    assert not torch.equal(half.evaluate(x, torch.tensor([0.5]), rows), whole.evaluate(x, torch.tensor([0.5]), rows))


@pytest.mark.parametrize("victim", ["net.pt", "vae/diffusion_pytorch_model.safetensors"])
def test_a_file_that_changed_since_it_was_fetched_is_refused(far: Path, victim: str) -> None:
    (pulled,) = (each for each in pull("far") if each.file.path == victim)
    pulled.path.write_bytes(pulled.path.read_bytes()[:-1] + b"x")
    with pytest.raises(ChecksumMismatch, match=f"SHA-256 is .*, but {pulled.sha256} was expected"):
        catalog.load_generator("far")


def test_a_file_that_is_not_the_pinned_one_is_refused(far: Path, published: FileServer) -> None:
    pull("far")
    right = hashlib.sha256(published.files["net.pt"]).hexdigest()
    for digest in (right, "0" * 64):
        far.write_text(far.read_text().replace('/net.pt"\n', f'/net.pt"\nsha256 = "{digest}"\n'))
        if digest == right:
            catalog.load_generator("far")
            far.write_text(far.read_text().replace(f'sha256 = "{digest}"\n', ""))
    with pytest.raises(ChecksumMismatch, match=f"SHA-256 is {right}, but 0+ was expected"):
        catalog.load_generator("far")
    with pytest.raises(ChecksumMismatch, match="is pinned; it is thrown away"):
        pull("far")


def test_a_pickle_is_read_only_if_its_checksum_is_known(cards: Path, tmp_path: Path) -> None:
    torch.save(tiny_sit().state_dict(), cards / "mine.pt")
    card = cards / "mine.toml"
    card.write_text(sit_card("mine", 'weights = "mine.pt"'))
    with pytest.raises(BadWeights, match=r"mine.pt is not safetensors, .*give `sha256` in .*mine.toml"):
        catalog.load_generator("mine")
    digest = hashlib.sha256((cards / "mine.pt").read_bytes()).hexdigest()
    card.write_text(sit_card("mine", f'weights = "mine.pt"\nsha256 = "{digest}"'))
    assert catalog.load_generator("mine").shape == (4, 8, 8)
    card.write_text(sit_card("mine", f'weights = "mine.pt"\nsha256 = "{"f" * 64}"'))
    with pytest.raises(ChecksumMismatch):
        catalog.load_generator("mine")


class Trap:
    """Pickles as a call of os.mkdir."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_even_a_pinned_pickle_with_code_is_refused(cards: Path, tmp_path: Path) -> None:
    torch.save({"ema": tiny_sit().state_dict(), "args": Trap(tmp_path / "made")}, cards / "evil.pt")
    digest = hashlib.sha256((cards / "evil.pt").read_bytes()).hexdigest()
    (cards / "evil.toml").write_text(sit_card("evil", f'weights = "evil.pt"\nsha256 = "{digest}"'))
    for use in (lambda: catalog.load_generator("evil"), lambda: catalog.model_card("evil").network):
        with pytest.raises(BadWeights, match=r"evil.pt is refused: .*would run code .*mkdir"):
            use()
    assert not (tmp_path / "made").exists()


def test_a_card_may_name_a_sharded_folder_beside_it(cards: Path) -> None:
    save_sharded(tiny_sit().state_dict(), cards / "shards")
    (cards / "mine.toml").write_text(sit_card("mine", 'weights = "shards"'))
    generator = catalog.load_generator("mine")
    assert generator.shape == (4, 8, 8) and isinstance(generator.decoder, Pixels)


def test_a_card_in_the_users_folder_replaces_the_bundled_one(cards: Path) -> None:
    bundled = CARDS["sit-xl-2-256"]
    (cards / "sit-xl-2-256.toml").write_text(bundled.replace('title = "', 'title = "mine: '))
    assert catalog.model_card("sit-xl-2-256").title.startswith("mine: ")
    assert catalog.model_card("glyphs").title == "Letters and digits in many typefaces, 32x32 RGB"


def test_weights_that_are_missing_torn_or_of_another_shape_are_refused(cards: Path) -> None:
    (cards / "mine.toml").write_text(sit_card("mine", 'weights = "mine.safetensors"\ndepth = 2'))
    weights = cards / "mine.safetensors"
    with pytest.raises(BadWeights, match=r"cannot read the weights .*missing"):
        catalog.load_generator("mine")
    weights.write_bytes(b"\x80\x04not safetensors")
    with pytest.raises(BadWeights, match="cannot read the weights"):
        catalog.load_generator("mine")
    save_file({"pos_embed": torch.zeros(1)}, weights)
    with pytest.raises(BadWeights, match="does not fit the network"):
        catalog.load_generator("mine")
    save_file(tiny_sit().state_dict(), weights)
    (cards / "mine.toml").write_text(sit_card("mine", 'weights = "mine.safetensors"\ndepth = 3'))
    with pytest.raises(BadWeights, match="depth is 2 in them, and given as 3"):
        catalog.load_generator("mine")


def test_a_decoder_of_another_scale_than_the_cards_is_refused(cards: Path) -> None:
    save_sharded(tiny_sit().state_dict(), cards / "shards")
    save_vae(cards / "vae")
    decoder = '[decoder]\nkind = "autoencoder_kl"\nweights = "vae"\ndownsampling = 16\n'
    (cards / "mine.toml").write_text(sit_card("mine", 'weights = "shards"', decoder=decoder))
    with pytest.raises(BadWeights, match="8 pixels a cell, the card says 16"):
        catalog.load_generator("mine")


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ('kind = "sit"', 'kind = "dit"', "network: .*'dit'"),
        ('interpolant = "GVP"', 'interpolant = "Cosine"', r"flow\.interpolant"),
        ("steps = 2", "steps = ", "is not TOML"),
        ('name = "mine"', 'name = "yours"', "has the name 'yours', and its file 'mine'"),
        ('title = "a tiny SiT"', "", "title: Field required"),
        ("template =", 'source = "imagenet"\ntemplate =', "give one of"),
        ('weights = "w"', 'weights = "w"\nheads = 2', r"network\.sit\.heads"),
    ],
)
def test_a_card_that_is_not_well_formed_is_refused_with_the_field_at_fault(
    cards: Path, before: str, after: str, reason: str
) -> None:
    text = sit_card("mine", 'weights = "w"')
    assert before in text
    (cards / "mine.toml").write_text(text.replace(before, after))
    with pytest.raises(BadCard, match=reason):
        catalog.model_card("mine")
