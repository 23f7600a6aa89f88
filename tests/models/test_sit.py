"""The network has the published sizes and shapes; that its numbers are the reference's is tests/test_golden.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sitsearch.models.sit import PATCH_SIZES, SIZES, SiT, SiTConfig, sincos_positions

#: Millions of parameters, and GMACs at 32x32 latents by patch size (SiT and DiT, Table 1 and appendix).
PUBLISHED = {
    "S": (33, (6.06, 1.41, 0.36)),
    "B": (130, (23.01, 5.56, 1.42)),
    "L": (458, (80.71, 19.70, 5.01)),
    "XL": (675, (118.64, 29.05, 7.39)),
}


def tiny(**overrides: int | bool) -> SiTConfig:
    shape = {"input_size": 8, "patch_size": 2, "hidden_size": 32, "depth": 2, "num_heads": 4, "num_classes": 5}
    return SiTConfig(**(shape | overrides))  # type: ignore[arg-type]


def randomised(config: SiTConfig) -> SiT:
    """A network whose every weight is random: training starts from zero gates, which hide everything."""
    torch.manual_seed(0)
    net = SiT(config).eval()
    for name, parameter in net.named_parameters():
        if name != "pos_embed":
            nn.init.normal_(parameter, std=0.1)
    return net.requires_grad_(False)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("patch", PATCH_SIZES)
def test_presets_have_the_published_sizes(size: str, patch: int) -> None:
    config = SiTConfig.preset(f"{size}/{patch}")
    with torch.device("meta"):
        net = SiT(config)
    parameters = sum(p.numel() for p in net.parameters())
    millions, gmacs = PUBLISHED[size]
    assert parameters / 1e6 == pytest.approx(millions, rel=0.02)
    assert config.macs / 1e9 == pytest.approx(gmacs[PATCH_SIZES.index(patch)], rel=0.03)


@pytest.mark.parametrize("learn_sigma", [True, False])
@pytest.mark.parametrize(("channels", "size", "patch"), [(3, 16, 4), (4, 8, 2), (1, 8, 8)])
def test_the_output_has_the_shape_of_the_input(learn_sigma: bool, channels: int, size: int, patch: int) -> None:
    config = tiny(in_channels=channels, input_size=size, patch_size=patch, learn_sigma=learn_sigma)
    x = torch.randn(3, channels, size, size)
    out = randomised(config)(x, torch.rand(3), torch.tensor([0, 4, 5]))
    assert out.shape == x.shape and torch.isfinite(out).all()


def test_each_row_has_its_own_time_and_class() -> None:
    net = randomised(tiny())
    x, t, y = torch.randn(4, 4, 8, 8), torch.tensor([0.1, 0.9, 0.1, 0.5]), torch.tensor([1, 1, 2, 5])
    together = net(x, t, y)
    for row in range(4):
        one = net(x[row : row + 1], t[row : row + 1], y[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], one, rtol=1e-4, atol=1e-5)
    same = net(x[:1].expand(4, -1, -1, -1), t, y)
    assert all(not torch.allclose(same[a], same[b], atol=1e-4) for a in range(4) for b in range(a))


def test_training_starts_from_zero_output() -> None:
    net = SiT(tiny())
    assert not net(torch.randn(2, 4, 8, 8), torch.rand(2), torch.tensor([0, 1])).any()


def test_unpatchify_undoes_patches_in_place() -> None:
    """Token n's channels fill the patch at row n // grid, column n % grid."""
    config = tiny(in_channels=1, learn_sigma=False)
    tokens = torch.arange(config.tokens).float().reshape(1, -1, 1).expand(1, -1, config.patch_size**2)
    image = SiT(config).unpatchify(tokens)[0, 0]
    expected = torch.arange(config.tokens).float().reshape(config.grid, config.grid)
    assert torch.equal(image[::2, ::2], expected) and torch.equal(image[1::2, 1::2], expected)


def test_positions_encode_the_column_first() -> None:
    positions = sincos_positions(32, 4).reshape(4, 4, 32)
    assert torch.equal(positions[0, 2, :16], positions[3, 2, :16])
    assert torch.equal(positions[2, 0, 16:], positions[2, 3, 16:])


@pytest.mark.parametrize(
    "wrong", [{"depth": 0}, {"input_size": 9}, {"num_heads": 5}, {"hidden_size": 34, "num_heads": 2}]
)
def test_impossible_shapes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)) if "num_heads" not in wrong else "hidden_size"):
        tiny(**wrong)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ValueError, match="S/2"):
        SiTConfig.preset("M/2")
