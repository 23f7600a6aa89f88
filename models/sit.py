"""The SiT network (Ma et al. 2024, arXiv 2401.08740): a diffusion transformer that predicts a vector field.

The module and parameter names are those of the published checkpoints, so their state dicts load unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TIMESTEP_FREQUENCIES = 256
MLP_RATIO = 4
LAYER_NORM_EPS = 1e-6
#: Tokens up to which a head's attention weights are small enough to be written out.
SHORT = 256

#: depth, hidden_size, num_heads of the paper's four sizes (SiT, Table 1).
SIZES: Mapping[str, tuple[int, int, int]] = {
    "S": (12, 384, 6),
    "B": (12, 768, 12),
    "L": (24, 1024, 16),
    "XL": (28, 1152, 16),
}
PATCH_SIZES = (2, 4, 8)


@dataclass(frozen=True)
class SiTConfig:
    """What fixes the shapes of a SiT.

    Attributes:
        input_size: height and width of the input in pixels (or latent cells); a multiple of `patch_size`.
        patch_size: side of a square patch; one patch is one token.
        in_channels: channels of the input.
        hidden_size: width of the transformer; a multiple of 4 (sin-cos positions) and of `num_heads`.
        depth: number of transformer blocks.
        num_heads: attention heads a block.
        num_classes: classes, not counting the null class that stands for "no condition".
        learn_sigma: the network has twice the output channels; the second half is ignored by SiT.

    Raises:
        ValueError: a size is not positive, or one does not divide another as said above.
    """

    input_size: int = 32
    patch_size: int = 2
    in_channels: int = 4
    hidden_size: int = 1152
    depth: int = 28
    num_heads: int = 16
    num_classes: int = 1000
    learn_sigma: bool = True

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name != "learn_sigma" and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if self.input_size % self.patch_size:
            raise ValueError(f"input_size {self.input_size} is not a multiple of patch_size {self.patch_size}")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        if self.hidden_size % 4:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of 4")

    @classmethod
    def preset(cls, name: str, **overrides: int | bool) -> SiTConfig:
        """The paper's `S/2` ... `XL/8`; keyword arguments change the other fields.

        Raises:
            ValueError: the name is not one of the twelve.
        """
        size, _, patch = name.partition("/")
        if size not in SIZES or patch not in map(str, PATCH_SIZES):
            known = ", ".join(f"{s}/{p}" for s in SIZES for p in PATCH_SIZES)
            raise ValueError(f"no SiT named {name!r}; the presets are {known}")
        depth, hidden_size, num_heads = SIZES[size]
        shape = {"depth": depth, "hidden_size": hidden_size, "num_heads": num_heads, "patch_size": int(patch)}
        return cls(**(shape | overrides))  # type: ignore[arg-type]

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.input_size // self.patch_size

    @property
    def tokens(self) -> int:
        """Tokens of one sample."""
        return self.grid**2

    @property
    def out_channels(self) -> int:
        """Channels that the last layer writes, the ignored half of `learn_sigma` included."""
        return self.in_channels * (2 if self.learn_sigma else 1)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one forward of one sample (matrix products and attention; 1 MAC = 2 FLOPs)."""
        d, n = self.hidden_size, self.tokens
        patch_in = self.patch_size**2 * self.in_channels
        patch_out = self.patch_size**2 * self.out_channels
        block = n * (4 + 2 * MLP_RATIO) * d * d + 2 * n * n * d + 6 * d * d
        embed = n * patch_in * d + TIMESTEP_FREQUENCIES * d + d * d
        final = n * d * patch_out + 2 * d * d
        return self.depth * block + embed + final


def sincos_positions(dim: int, grid: int) -> Tensor:
    """Fixed 2-D sin-cos position embedding `[grid * grid, dim]`, computed in float64 (MAE, arXiv 2111.06377).

    The first half of the channels encodes the column, the second half the row.
    """
    freqs = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim / 4.0))
    axis = torch.arange(grid, dtype=torch.float64)
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")

    def encode(position: Tensor) -> Tensor:
        angles = position.reshape(-1, 1) * freqs
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    return torch.cat([encode(columns), encode(rows)], dim=1).float()


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """adaLN: `x [B, N, D]` scaled and shifted by `[B, D]`."""
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


class PatchEmbed(nn.Module):
    """Image `[B, C, H, W]` to tokens `[B, N, D]`."""

    def __init__(self, config: SiTConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.proj = nn.Conv2d(config.in_channels, config.hidden_size, config.patch_size, stride=config.patch_size)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        p = self.patch_size
        # A patch is a dot product: one matmul over unfolded patches is what the strided convolution computes.
        patches = x.reshape(b, c, h // p, p, w // p, p).permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * p * p)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class TimestepEmbedder(nn.Module):
    """Times `t [B]` in [0, 1] to vectors `[B, D]`, through sinusoids (not scaled by 1000, as SiT trains it)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(TIMESTEP_FREQUENCIES, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size)
        )

    @staticmethod
    def sinusoids(t: Tensor) -> Tensor:
        """`[B]` to `[B, 256]`, cosines before sines, in float32."""
        half = TIMESTEP_FREQUENCIES // 2
        freqs = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
        angles = t.float()[:, None] * freqs
        return torch.cat([angles.cos(), angles.sin()], dim=-1)

    def forward(self, t: Tensor) -> Tensor:
        return self.mlp(self.sinusoids(t).to(next(self.mlp.parameters()).dtype))


class LabelEmbedder(nn.Module):
    """Class indices `[B]` to vectors `[B, D]`; the last row of the table is the null class."""

    def __init__(self, num_classes: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, hidden_size)

    def forward(self, y: Tensor) -> Tensor:
        return self.embedding_table(y)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v over `[B, heads, N, d]`."""
    narrow = q.dtype == torch.bfloat16 and q.shape[-2] <= SHORT
    if q.device.type == "cpu" and (narrow or torch.is_grad_enabled()):
        # The CPU's fused kernel is slow backwards on short sequences: spelt out, a training step takes a third less.
        # Forwards it is slow in bfloat16, whose matrix products take half as long or less.
        return ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v)


class Attention(nn.Module):
    """Multi-head self-attention over tokens `[B, N, D]`."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, d // self.num_heads).permute(2, 0, 3, 1, 4)
        return self.proj(attend(q, k, v).transpose(1, 2).reshape(b, n, d))


class Mlp(nn.Module):
    """Two linear layers with tanh-approximated GELU between."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, MLP_RATIO * dim)
        self.fc2 = nn.Linear(MLP_RATIO * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


def _norm(dim: int) -> nn.LayerNorm:
    return nn.LayerNorm(dim, eps=LAYER_NORM_EPS, elementwise_affine=False)


class SiTBlock(nn.Module):
    """Transformer block with adaLN-Zero conditioning (DiT, arXiv 2212.09748, section 3.2)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = _norm(dim)
        self.attn = Attention(dim, num_heads)
        self.norm2 = _norm(dim)
        self.mlp = Mlp(dim)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(c).chunk(6, dim=1)
        x = x + gate_a.unsqueeze(1) * self.attn(modulate(self.norm1(x), shift_a, scale_a))
        return x + gate_m.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift_m, scale_m))


class FinalLayer(nn.Module):
    """Tokens to patches of pixels."""

    def __init__(self, config: SiTConfig) -> None:
        super().__init__()
        dim = config.hidden_size
        self.norm_final = _norm(dim)
        self.linear = nn.Linear(dim, config.patch_size**2 * config.out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


class SiT(nn.Module):
    """The vector field (or score, or noise: see the model card's prediction) of a class-conditional interpolant."""

    pos_embed: Tensor

    def __init__(self, config: SiTConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.hidden_size
        self.x_embedder = PatchEmbed(config)
        self.t_embedder = TimestepEmbedder(dim)
        self.y_embedder = LabelEmbedder(config.num_classes, dim)
        self.register_parameter(
            "pos_embed", nn.Parameter(sincos_positions(dim, config.grid).unsqueeze(0), requires_grad=False)
        )
        self.blocks = nn.ModuleList(SiTBlock(dim, config.num_heads) for _ in range(config.depth))
        self.final_layer = FinalLayer(config)
        self.initialize_weights()

    def initialize_weights(self) -> None:
        """The published initialisation: Xavier linears, zero gates and a zero output layer."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.data.flatten(1))
        nn.init.zeros_(self.x_embedder.proj.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        for layer in (self.t_embedder.mlp[0], self.t_embedder.mlp[2]):
            nn.init.normal_(layer.weight, std=0.02)  # type: ignore[arg-type]
        for block in [*self.blocks, self.final_layer]:
            nn.init.zeros_(block.adaLN_modulation[1].weight)
            nn.init.zeros_(block.adaLN_modulation[1].bias)
        nn.init.zeros_(self.final_layer.linear.weight)
        nn.init.zeros_(self.final_layer.linear.bias)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """One network evaluation.

        Args:
            x: `[B, C, H, W]`, the state at time `t`.
            t: `[B]` in [0, 1]; 0 is noise, 1 is data. Each sample has its own.
            y: `[B]` int64 in [0, num_classes]; `num_classes` is the null class.

        Returns:
            `[B, C, H, W]`, the prediction; the extra channels of `learn_sigma` are dropped.
        """
        tokens = self.x_embedder(x) + self.pos_embed
        c = self.t_embedder(t) + self.y_embedder(y)
        for block in self.blocks:
            tokens = block(tokens, c)
        return self.unpatchify(self.final_layer(tokens, c))

    def unpatchify(self, tokens: Tensor) -> Tensor:
        """`[B, N, patch * patch * out_channels]` to `[B, in_channels, H, W]`."""
        cfg = self.config
        patches = tokens.reshape(-1, cfg.grid, cfg.grid, cfg.patch_size, cfg.patch_size, cfg.out_channels)
        image = patches.permute(0, 5, 1, 3, 2, 4).reshape(-1, cfg.out_channels, cfg.input_size, cfg.input_size)
        return image[:, : cfg.in_channels]
