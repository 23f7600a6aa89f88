"""Train the CLIP of glyphs: `python -m models.training.glyphs.verifiers.train_clip OUT_FOLDER NPZ...`.

open_clip's own model, tokenizer and loss, in the configuration `clip_config.json`: CLIP's ResNet, and a text
tower that sees upper and lower case (open_clip's tokenizer is told to keep them). The folder has
open_clip's own format and loads with `open_clip.create_model("local-dir:FOLDER")`.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from pathlib import Path
from typing import Any

import open_clip  # type: ignore[import-untyped]
import torch
from open_clip.push_to_hf_hub import save_config_for_hf  # type: ignore[import-untyped]
from torch import Tensor

from models.training.glyphs.families import CLASSES
from models.training.glyphs.verifiers.captions import ATTRIBUTES, VOCABULARY, Glyph, case_of, worded
from models.training.glyphs.verifiers.fit import fit, save
from models.training.glyphs.verifiers.styled import StyledGlyphs
from models.verifiers.preprocess import Transform

CONFIG = Path(__file__).with_name("clip_config.json")
PREPROCESS = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bilinear", "resize_mode": "squash"}
#: A narrow batch holds so few characters and pairs of colours that only the style tells its pictures apart.
NARROW_CHARACTERS, NARROW_PAIRS = 6, 6
NARROW_SHARE = 0.5
#: How likely an attribute is said, in a wide and in a narrow batch.
SAID = {False: 0.65, True: 0.85}


def make_model() -> Any:
    """The untrained model. The rows of words that no caption has stay zero: an unknown word says nothing."""
    open_clip.add_model_config(CONFIG)
    model = open_clip.create_model(CONFIG.stem, force_preprocess_cfg=PREPROCESS)
    rng = random.Random(0)
    everything = [_any_glyph(rng) for _ in range(20_000)]
    known = open_clip.get_tokenizer(CONFIG.stem)([worded(glyph, rng) for glyph in everything]).unique()
    with torch.no_grad():
        table = model.token_embedding.weight
        rows = table[known].clone()
        table.zero_()[known] = rows
    return model


def _any_glyph(rng: random.Random) -> Glyph:
    character = rng.choice(CLASSES)
    values = {name: rng.choice(list(words)) for name, words in VOCABULARY.items()}
    glyph = Glyph(**{**values, "character": character, "case": case_of(character)})
    return glyph.only([name for name in ATTRIBUTES if rng.random() < 0.8])


def draw(data: StyledGlyphs, size: int, generator: torch.Generator, rng: random.Random) -> tuple[Tensor, list[str]]:
    """A batch: pictures `[size, 3, 32, 32]` in [0, 1] and a caption of each."""
    narrow = rng.random() < NARROW_SHARE
    weights, pairs = data.weights, torch.arange(len(data.pairs))
    if narrow:
        characters = torch.randperm(len(CLASSES), generator=generator)[:NARROW_CHARACTERS]
        weights = weights * torch.isin(data.labels, characters)
        pairs = pairs[torch.randperm(len(pairs), generator=generator)[:NARROW_PAIRS]]
    index = torch.multinomial(weights, size, replacement=False, generator=generator)
    pair = pairs[torch.randint(len(pairs), (size,), generator=generator)]
    images = data.images(index, pair, generator, augment=True)
    captions = []
    for i, p in zip(index.tolist(), pair.tolist(), strict=True):
        kept = [name for name in ATTRIBUTES if rng.random() < SAID[narrow]]
        captions.append(worded(data.description(i, p).only(kept), rng))
    return images, captions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--batch", type=int, default=160)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=3)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    data = StyledGlyphs(args.data)
    model = make_model()
    model.visual.to(memory_format=torch.channels_last)
    tokenizer = open_clip.get_tokenizer(CONFIG.stem)
    transform = Transform.from_open_clip(model.visual.preprocess_cfg)
    contrast = open_clip.ClipLoss()

    def loss(generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        images, captions = draw(data, args.batch, generator, rng)
        with torch.autocast("cpu", torch.bfloat16):
            image = model.encode_image(transform(images).to(memory_format=torch.channels_last), normalize=True)
        text = model.encode_text(tokenizer(captions), normalize=True)
        value: Tensor = contrast(image.float(), text, model.logit_scale.exp())
        return value

    fit(model, loss, steps=args.steps, lr=args.lr, seed=args.seed, checkpoint=args.out / "part.safetensors")
    save(model, args.out / "open_clip_model.safetensors")
    save_config_for_hf(model, args.out / "open_clip_config.json", model_config=json.loads(CONFIG.read_text()))
    (args.out / "part.safetensors").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
