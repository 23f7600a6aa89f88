"""Train the CLIP of glyphs: `python -m sitsearch.models.training.glyphs.verifiers.train_clip OUT_FOLDER NPZ...`.

open_clip's own model, tokenizer and `ClipLoss`, in the configuration `clip_config.json`: CLIP's ResNet, and a text
tower that sees upper and lower case (open_clip's tokenizer is told to keep them). The folder has
open_clip's own format and loads with `open_clip.create_model("local-dir:FOLDER")`.

Colours alone set most pictures of a batch apart, and the contrast by itself is content with that for a long time. So
linear heads on the embedding, the same for pictures and texts, also have to read off every attribute; they are not
kept. A second pass (`--start`, `--siblings`) tells each caption from those that differ from it in one attribute.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip  # type: ignore[import-untyped]
import torch
import torch.nn.functional as F
from open_clip.push_to_hf_hub import save_config_for_hf  # type: ignore[import-untyped]
from safetensors.torch import load_file
from torch import Tensor, nn

from sitsearch.models.training.glyphs.families import CLASSES
from sitsearch.models.training.glyphs.verifiers.captions import (
    ATTRIBUTES,
    VOCABULARY,
    Glyph,
    case_of,
    values_of,
    worded,
)
from sitsearch.models.training.glyphs.verifiers.fit import fit, save
from sitsearch.models.training.glyphs.verifiers.styled import StyledGlyphs
from sitsearch.models.verifiers.preprocess import Transform

CONFIG = Path(__file__).with_name("clip_config.json")
PREPROCESS = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bilinear", "resize_mode": "squash"}
#: A narrow batch holds so few characters and pairs of colours that only the style tells its pictures apart.
NARROW_CHARACTERS, NARROW_PAIRS = 6, 6
NARROW_SHARE = 0.5
#: How likely an attribute is said, in a wide and in a narrow batch.
SAID = {False: 0.65, True: 0.85}
#: How often siblings of a caption differ from it in an attribute, where it is said: the hard ones more often.
DIFFER = {"category": 5, "weight": 3, "character": 2, "slant": 1, "ink": 1, "paper": 1}
#: Siblings of one caption, at most.
SIBLINGS = 4
#: What the unit embeddings are multiplied by before the heads, for their weights to stay small.
HEAD_SCALE = 10.0
IGNORED = -100


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


class AttributeHeads(nn.Module):
    """Cross-entropy of every attribute, read off embeddings `[B, D]` of length 1 by linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.values = {name: list(VOCABULARY[name]) for name in VOCABULARY} | {"character": list(CLASSES)}
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(values)) for name, values in self.values.items()})

    def forward(self, embeddings: Tensor, glyphs: Sequence[Glyph]) -> Tensor:
        """The mean over attributes; where one is not known it does not count."""
        losses = []
        for name, values in self.values.items():
            known = [values.index(value) if (value := getattr(glyph, name)) else IGNORED for glyph in glyphs]
            logits = self.heads[name](HEAD_SCALE * embeddings)
            losses.append(F.cross_entropy(logits, torch.tensor(known), ignore_index=IGNORED))
        return torch.stack(losses).nanmean()  # an attribute that no glyph of the batch has gives nan


def draw(
    data: StyledGlyphs, size: int, generator: torch.Generator, rng: random.Random
) -> tuple[Tensor, list[Glyph], list[Glyph]]:
    """A batch: pictures `[size, 3, 32, 32]` in [0, 1], what is true of each, and how much of that is to be said."""
    narrow = rng.random() < NARROW_SHARE
    weights, pairs = data.weights, torch.arange(len(data.pairs))
    if narrow:
        characters = torch.randperm(len(CLASSES), generator=generator)[:NARROW_CHARACTERS]
        weights = weights * torch.isin(data.labels, characters)
        pairs = pairs[torch.randperm(len(pairs), generator=generator)[:NARROW_PAIRS]]
    index = torch.multinomial(weights, size, replacement=False, generator=generator)
    pair = pairs[torch.randint(len(pairs), (size,), generator=generator)]
    images = data.images(index, pair, generator, augment=True)
    true = [data.description(i, p) for i, p in zip(index.tolist(), pair.tolist(), strict=True)]
    said = [glyph.only([name for name in ATTRIBUTES if rng.random() < SAID[narrow]]) for glyph in true]
    return images, true, said


def siblings(glyph: Glyph, rng: random.Random) -> list[Glyph]:
    """The same with one of the attributes in `DIFFER` changed, to up to `SIBLINGS` other values.

    Raises:
        ValueError: none of them is known.
    """
    known = [name for name in DIFFER if getattr(glyph, name) is not None]
    if not known:
        raise ValueError(f"no attribute of {glyph} can be changed")
    (name,) = rng.choices(known, [DIFFER[each] for each in known])
    values = [value for value in values_of(name) if value != getattr(glyph, name)]
    changed = [replace(glyph, **{name: value}) for value in rng.sample(values, min(SIBLINGS, len(values)))]
    return [replace(each, case=case_of(each.character)) if each.character else each for each in changed]


def sibling_loss(encode: Callable[[list[str]], Tensor], image: Tensor, said: Sequence[Glyph], seed: int) -> Tensor:
    """Cross-entropy of each picture's caption among its siblings, all worded alike (NegCLIP's hard negatives, arXiv
    2210.01936, but held against their own picture only, since they may be true of another).

    Args:
        encode: texts to embeddings of length 1, times the learned scale.
        image: embeddings `[B, D]` of length 1.
        said: what the captions say.
        seed: of the choice and the wording.
    """
    groups = [[glyph, *siblings(glyph, random.Random(seed + i))] for i, glyph in enumerate(said)]
    text = encode([worded(glyph, random.Random(seed + i)) for i, group in enumerate(groups) for glyph in group])
    owner = torch.tensor([i for i, group in enumerate(groups) for _ in group])
    place = torch.tensor([j for group in groups for j in range(len(group))])
    logits = image.new_full((len(groups), 1 + SIBLINGS), -torch.inf)
    logits = logits.index_put((owner, place), (image[owner] * text).sum(dim=1))
    return F.cross_entropy(logits, torch.zeros(len(groups), dtype=torch.int64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=2200)
    parser.add_argument("--batch", type=int, default=160)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--start", type=Path, help="folder of an earlier run whose weights to start from")
    parser.add_argument("--siblings", type=int, default=0, help="captions of a batch that are told from their siblings")
    parser.add_argument("--seed", type=int, default=3)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    data = StyledGlyphs(args.data)
    model = make_model()
    if args.start:
        model.load_state_dict(load_file(args.start / "open_clip_model.safetensors"))
    model.visual.to(memory_format=torch.channels_last)
    tokenizer = open_clip.get_tokenizer(CONFIG.stem)
    transform = Transform.from_open_clip(model.visual.preprocess_cfg)
    contrast, heads = open_clip.ClipLoss(), AttributeHeads(model.visual.output_dim)
    matrices = [p for name, p in model.transformer.named_parameters() if p.ndim == 2]

    def loss(generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        images, true, said = draw(data, args.batch, generator, rng)
        with torch.autocast("cpu", torch.bfloat16):
            image = model.encode_image(transform(images).to(memory_format=torch.channels_last), normalize=True)
        image = image.float()
        text = model.encode_text(tokenizer([worded(glyph, rng) for glyph in said]), normalize=True)
        value: Tensor = contrast(image, text, model.logit_scale.exp())
        value = value + heads(image, true) + heads(text, said)
        if args.siblings:
            chosen = [i for i, glyph in enumerate(said) if any(getattr(glyph, name) for name in DIFFER)]
            chosen = chosen[: args.siblings]
            value = value + sibling_loss(scaled, image[chosen], [said[i] for i in chosen], rng.getrandbits(32))
        return value

    def scaled(texts: list[str]) -> Tensor:
        return model.encode_text(tokenizer(texts), normalize=True) * model.logit_scale.exp()

    fit(nn.ModuleList([model, heads]), loss, steps=args.steps, lr=args.lr, seed=args.seed, matrices=matrices)
    save(model, args.out / "open_clip_model.safetensors")
    save_config_for_hf(model, args.out / "open_clip_config.json", model_config=json.loads(CONFIG.read_text()))


if __name__ == "__main__":
    main()
