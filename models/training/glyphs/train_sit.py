"""Train the bundled generator: `python -m models.training.glyphs.train_sit GLYPHS.npz CLASSIFIER.safetensors RUN_DIR`.

Linear interpolant and velocity prediction (SiT, eq. 5), with three additions that a small budget needs: Muon on the
block matrices (torch.optim.Muon), representation alignment of a middle block with the classifier's 8x8 features
(REPA, arXiv 2410.06940), and a contrastive term that pushes the velocity away from another sample's
(contrastive flow matching, arXiv 2506.05350). The learning rate is warmed up, held, and brought to zero over the last
part; `--decay` continues a held run from its checkpoint with only that last part.

RUN_DIR gets `state.pt` (to resume from) and `ema.safetensors` every `--save-every` steps and at the end.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.sit import SiT, SiTConfig
from models.training.glyphs.dataset import GlyphData
from models.verifiers.glyph_net import GlyphNet

CLASS_DROPOUT = 0.1
ALIGN_WEIGHT = 0.5
CONTRAST_WEIGHT = 0.05
WARMUP_STEPS = 200


class Trainee(nn.Module):
    """The network with the projection that aligns block `align_depth` with the classifier's features."""

    def __init__(self, config: SiTConfig, feature_channels: int, align_depth: int) -> None:
        super().__init__()
        self.net = SiT(config)
        self.align_depth = align_depth
        dim = config.hidden_size
        self.project = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, feature_channels))

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity `[B, 3, 32, 32]` and projected features `[B, 64, feature_channels]`."""
        net = self.net
        tokens = net.x_embedder(x) + net.pos_embed
        c = net.t_embedder(t) + net.y_embedder(y)
        aligned = tokens
        for depth, block in enumerate(net.blocks, 1):
            tokens = block(tokens, c)
            if depth == self.align_depth:
                aligned = self.project(tokens)
        return net.unpatchify(net.final_layer(tokens, c)), aligned


def sample_times(size: int, generator: torch.Generator) -> Tensor:
    """Logit-normal times (SD3, arXiv 2403.03206), with one in five uniform so that the ends are seen."""
    t = torch.sigmoid(torch.randn(size, generator=generator) - 0.2)
    uniform = torch.rand(size, generator=generator)
    return torch.where(torch.rand(size, generator=generator) < 0.2, uniform, t)


def optimizers(model: Trainee, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the attention and MLP matrices, AdamW for everything else."""
    matrices = [p for name, p in model.net.blocks.named_parameters() if p.ndim == 2 and "adaLN" not in name]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=lr, weight_decay=0.0, betas=(0.9, 0.98), fused=True),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("classifier", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--decay", type=int, default=0, metavar="N", help="from RUN_DIR/state.pt, decay over N steps")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--heads", type=int, default=3)
    parser.add_argument("--align-depth", type=int, default=3)
    parser.add_argument("--ema", type=float, default=0.9995)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=500)
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    args.run.mkdir(parents=True, exist_ok=True)

    data = GlyphData(args.data)
    encoder = GlyphNet()
    encoder.load_state_dict(load_file(args.classifier))
    encoder.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    config = SiTConfig(
        input_size=32,
        patch_size=4,
        in_channels=3,
        hidden_size=args.hidden,
        depth=args.depth,
        num_heads=args.heads,
        num_classes=62,
        learn_sigma=False,
    )
    feature_channels = encoder.grid_features(torch.zeros(1, 3, 32, 32)).shape[1]
    model = Trainee(config, feature_channels, args.align_depth)
    ema = copy.deepcopy(model.net).requires_grad_(False)
    opts = optimizers(model, args.lr)
    first = 0
    state_path = args.run / "state.pt"
    if state_path.exists():
        state = torch.load(state_path, weights_only=True)
        model.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        for opt, saved in zip(opts, state["opts"], strict=True):
            opt.load_state_dict(saved)
        first = state["step"]
    last = first + args.decay if args.decay else args.steps
    print(f"{sum(p.numel() for p in model.net.parameters()) / 1e6:.1f} M parameters, steps {first}..{last}", flush=True)
    generator = torch.Generator().manual_seed(args.seed + first)
    # Forward and backward run on a bfloat16 copy; the float32 weights take the step.
    low = copy.deepcopy(model).bfloat16()
    run = low if args.no_compile else torch.compile(low)
    trained = [(p, q) for p, q in zip(model.parameters(), low.parameters(), strict=True) if p.requires_grad]
    masters, copies = map(list, zip(*trained, strict=True))
    live: list[Tensor] = [p for p in model.net.parameters() if p.requires_grad]
    shadow: list[Tensor] = [p for p, q in zip(ema.parameters(), model.net.parameters(), strict=True) if q.requires_grad]

    def save(step: int) -> None:
        saved = {
            "model": model.state_dict(),
            "ema": ema.state_dict(),
            "opts": [o.state_dict() for o in opts],
            "step": step,
        }
        torch.save(saved, state_path.with_suffix(".tmp"))
        state_path.with_suffix(".tmp").rename(state_path)
        save_file(ema.state_dict(), args.run / "ema.safetensors")

    start, mean_loss = time.monotonic(), 0.0
    for step in range(first, last):
        scale = min(1.0, (step + 1) / WARMUP_STEPS)
        if args.decay:
            scale *= 1 - (step - first) / args.decay
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = args.lr * scale
        images, labels = data.batch(args.batch, generator)
        x = images * 2 - 1
        labels[torch.rand(args.batch, generator=generator) < CLASS_DROPOUT] = config.num_classes
        noise = torch.randn(x.shape, generator=generator)
        t = sample_times(args.batch, generator)
        mix = t[:, None, None, None]
        target = x - noise
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            features = encoder.grid_features(images.to(memory_format=torch.channels_last)).flatten(2).transpose(1, 2)
        velocity, aligned = run((mix * x + (1 - mix) * noise).bfloat16(), t, labels)
        velocity = velocity.float()
        flow = F.mse_loss(velocity, target)
        contrast = F.mse_loss(velocity, target.roll(1, 0))
        align = F.cosine_similarity(aligned.float(), features.float() - features.float().mean((0, 1)), dim=-1).mean()
        loss = flow - CONTRAST_WEIGHT * contrast - ALIGN_WEIGHT * align
        loss.backward()
        for master, copied in trained:
            assert copied.grad is not None
            master.grad = copied.grad.float()
            copied.grad = None
        nn.utils.clip_grad_norm_(masters, 1.0)
        for opt in opts:
            opt.step()
        with torch.no_grad():
            torch._foreach_copy_(copies, masters)
            torch._foreach_lerp_(shadow, live, 1 - min(args.ema, (step + 1) / (step + 10)))
        mean_loss += (flow.item() - mean_loss) / min(step - first + 1, 100)
        if (step + 1) % 100 == 0:
            rate = (step + 1 - first) * args.batch / (time.monotonic() - start)
            print(f"step {step + 1} flow {mean_loss:.4f} align {align.item():.3f} {rate:.0f} samples/s", flush=True)
        if (step + 1) % args.save_every == 0 or step + 1 == last:
            save(step + 1)


if __name__ == "__main__":
    main()
