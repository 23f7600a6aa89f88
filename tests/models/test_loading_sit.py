"""SiTs from their weights alone."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sitsearch.models.errors import BadWeights
from sitsearch.models.loading.sit import blank, config_of, load_sit
from sitsearch.models.sit import PATCH_SIZES, SIZES, SiTConfig
from tests.models.tiny_sit import TINY, tiny_sit


def shapes_of(config: SiTConfig) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in blank(config).state_dict().items()}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("patch", PATCH_SIZES)
@pytest.mark.parametrize(("side", "classes", "learn_sigma"), [(32, 1000, True), (64, 10, False)])
def test_every_size_of_the_paper_is_read_off_its_weights(
    size: str, patch: int, side: int, classes: int, learn_sigma: bool
) -> None:
    config = SiTConfig.preset(f"{size}/{patch}", input_size=side, num_classes=classes, learn_sigma=learn_sigma)
    assert config_of(shapes_of(config)) == config


@pytest.mark.parametrize("channels", [1, 3, 16])
def test_other_widths_have_heads_of_64_channels_unless_told(channels: int) -> None:
    config = replace(TINY, hidden_size=192, num_heads=3, in_channels=channels)
    assert config_of(shapes_of(config)) == config
    assert config_of(shapes_of(config), {"num_heads": 6}) == replace(config, num_heads=6)


def test_what_is_given_must_hold_for_the_weights() -> None:
    shapes = shapes_of(TINY)
    assert config_of(shapes, asdict(TINY)) == TINY
    for name, value in {"depth": 3, "learn_sigma": False, "num_classes": 1000, "input_size": 32}.items():
        with pytest.raises(BadWeights, match=f"{name} is {getattr(TINY, name)} in them, and given as {value}"):
            config_of(shapes, {name: value})
    with pytest.raises(ValueError, match="no 'layers'"):
        config_of(shapes, {"layers": 2})


def test_weights_of_something_else_are_refused() -> None:
    shapes = shapes_of(TINY)
    with pytest.raises(BadWeights, match=r"not the weights of a SiT: there is no 'x_embedder.proj.weight'"):
        config_of({"weight": torch.Size([2, 2])})
    with pytest.raises(BadWeights, match="15 tokens, which are not a square"):
        config_of(shapes | {"pos_embed": torch.Size([1, 15, 64])})
    with pytest.raises(BadWeights, match="writes 12 channels, neither 4 nor twice that"):
        config_of(shapes | {"final_layer.linear.weight": torch.Size([48, 64])})
    with pytest.raises(BadWeights, match="not the weights of a SiT"):
        config_of({name: shape for name, shape in shapes.items() if not name.startswith("blocks.")})
    with pytest.raises(BadWeights, match=r"width 96 .* give num_heads"):
        config_of(shapes_of(replace(TINY, hidden_size=96, num_heads=2)))


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
def test_a_loaded_network_computes_what_the_saved_one_did(tmp_path: Path, name: str) -> None:
    net = tiny_sit()
    state = net.state_dict()
    save_file(state, tmp_path / name) if name.endswith("safetensors") else torch.save({"ema": state}, tmp_path / name)
    loaded = load_sit(tmp_path / name)
    x, t, y = torch.randn(3, 4, 8, 8), torch.rand(3), torch.tensor([0, 4, 5])
    assert torch.equal(loaded(x, t, y), net(x, t, y))
    assert loaded.config == TINY and not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    half = load_sit(tmp_path / name, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


def test_the_file_outlives_what_is_done_to_the_network(tmp_path: Path) -> None:
    torch.save(tiny_sit().state_dict(), tmp_path / "net.pt")
    before = (tmp_path / "net.pt").read_bytes()
    with torch.no_grad():
        next(load_sit(tmp_path / "net.pt").parameters()).zero_()
    assert (tmp_path / "net.pt").read_bytes() == before


def test_missing_and_surplus_tensors_are_refused(tmp_path: Path) -> None:
    state = tiny_sit().state_dict()
    torch.save({**state, "extra.weight": torch.zeros(1)}, tmp_path / "more.pt")
    with pytest.raises(BadWeights, match=r"(?s)more.pt does not fit the network: .*extra.weight"):
        load_sit(tmp_path / "more.pt")
    torch.save(
        {name: tensor for name, tensor in state.items() if name != "blocks.0.mlp.fc1.bias"}, tmp_path / "less.pt"
    )
    with pytest.raises(BadWeights, match=r"(?s)less.pt does not fit the network: .*blocks.0.mlp.fc1.bias"):
        load_sit(tmp_path / "less.pt")
