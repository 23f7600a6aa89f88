"""Print the figures of the bundled verifiers on held-out families, as their cards quote them.

`python -m sitsearch.models.training.glyphs.verifiers.evaluate GLYPHS.npz STYLES.npz`; every verifier is loaded by its
card.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from sitsearch.models.catalog import load_verifier
from sitsearch.models.condition import Condition
from sitsearch.models.training.glyphs.verifiers.captions import ATTRIBUTES, Glyph, canonical, values_of
from sitsearch.models.training.glyphs.verifiers.degrade import DEGRADATIONS
from sitsearch.models.training.glyphs.verifiers.styled import StyledGlyphs
from sitsearch.models.training.glyphs.verifiers.train_aesthetic import clean_batch
from sitsearch.models.verifiers.aesthetic import AestheticPredictor
from sitsearch.models.verifiers.base import ClassNetwork
from sitsearch.models.verifiers.clip import OpenClip, unit

SEED = 0
READERS = ("classifier", "auditor", "dinov2", "clip_class")


def sample(data: StyledGlyphs, size: int, generator: torch.Generator) -> tuple[Tensor, list[Glyph], Tensor]:
    """Random glyphs: pictures `[size, 3, 32, 32]`, what is true of each, and classes `[size]`."""
    index = torch.randperm(len(data), generator=generator)[:size]
    pair = torch.randint(len(data.pairs), (len(index),), generator=generator)
    glyphs = [data.description(i, p) for i, p in zip(index.tolist(), pair.tolist(), strict=True)]
    return data.images(index, pair, generator), glyphs, data.labels[index]


def reading_accuracy(network: ClassNetwork, images: Tensor, labels: Tensor) -> float:
    """Share of the pictures whose likeliest class is theirs."""
    guesses = torch.cat([network.log_probabilities(part).argmax(dim=1) for part in images.split(256)])
    return (guesses == labels).float().mean().item()


@torch.inference_mode()
def encoded(clip: OpenClip, captions: Sequence[str]) -> dict[str, Tensor]:
    """The text embedding of each caption, of length 1, in batches: many thousands of them are needed once."""
    once = sorted(set(captions))
    parts = [once[i : i + 512] for i in range(0, len(once), 512)]
    found = torch.cat([clip.model.encode_text(clip.tokenizer(part), normalize=True).float() for part in parts])
    return dict(zip(once, found, strict=True))


def attribute_accuracy(
    clip: OpenClip, features: Tensor, glyphs: Sequence[Glyph], attribute: str, *, alone: bool
) -> tuple[float, dict[str, float]]:
    """How often CLIP prefers the true value of an attribute to all others, over all glyphs and for each value.

    Args:
        clip: the model.
        features: image embeddings `[N, D]` of length 1.
        glyphs: what is true of each picture; those whose value is not known are left out.
        attribute: one of `ATTRIBUTES`.
        alone: captions that say this attribute only, instead of whole ones that differ in it only.
    """
    values = values_of(attribute)

    def captions(glyph: Glyph) -> list[str]:
        said = Glyph() if alone else glyph
        if attribute == "case":  # a character named in the caption would give its case away
            said = replace(said, character=None)
        return [canonical(replace(said, **{attribute: value})) for value in values]

    known = [i for i, glyph in enumerate(glyphs) if getattr(glyph, attribute) is not None]
    choices = {i: captions(glyphs[i]) for i in known}
    table = encoded(clip, [caption for choice in choices.values() for caption in choice])
    hits: dict[str, list[bool]] = {}
    for i, choice in choices.items():
        truth = getattr(glyphs[i], attribute)
        best = int((torch.stack([table[caption] for caption in choice]) @ features[i]).argmax())
        hits.setdefault(truth, []).append(values[best] == truth)
    each = {value: sum(found) / len(found) for value, found in sorted(hits.items())}
    return sum(map(sum, hits.values())) / len(known), each


def print_readers(data: StyledGlyphs) -> None:
    images, _, labels = sample(data, len(data), torch.Generator().manual_seed(SEED))
    for name in READERS:
        accuracy = reading_accuracy(load_verifier(name), images, labels)  # type: ignore[arg-type]
        print(f"{name}: reads {accuracy:.1%} of {len(images)} held-out glyphs")


def print_clip(data: StyledGlyphs, size: int) -> None:
    clip = load_verifier("clip_score")
    assert isinstance(clip, OpenClip)
    images, glyphs, _ = sample(data, size, torch.Generator().manual_seed(SEED))
    features = unit(clip.features(images))
    print("| attribute | values | alone | in a whole caption | each value, alone |\n|---|---|---|---|---|")
    for attribute in ATTRIBUTES:
        alone, each = attribute_accuracy(clip, features, glyphs, attribute, alone=True)
        whole, _ = attribute_accuracy(clip, features, glyphs, attribute, alone=False)
        shares = ", ".join(f"{value} {share:.2f}" for value, share in each.items()) if len(each) <= 5 else ""
        print(f"| {attribute} | {len(values_of(attribute))} | {alone:.3f} | {whole:.3f} | {shares} |")
    table = encoded(clip, [canonical(glyph) for glyph in glyphs])
    captions = torch.stack([table[canonical(glyph)] for glyph in glyphs])
    found = [
        (part @ text.T).argmax(dim=1).eq(torch.arange(len(part))).float().mean()
        for part, text in zip(features.split(256), captions.split(256), strict=True)
    ]
    print(f"caption of an image among 256: {torch.stack(found).mean():.3f} ranked first")


def print_aesthetic(data: StyledGlyphs, size: int) -> None:
    aesthetic = load_verifier("aesthetic")
    assert isinstance(aesthetic, AestheticPredictor)
    generator = torch.Generator().manual_seed(SEED)
    clean = clean_batch(data, generator, size)
    nothing = [Condition()] * size
    grades = aesthetic.score(clean, nothing)
    print(f"clean: mean grade {grades.mean():.2f}\n| damage | clean preferred | mean grade |\n|---|---|---|")
    wins = []
    for name, degrade in DEGRADATIONS.items():
        spoilt = aesthetic.score(degrade(clean, torch.rand(size, generator=generator), generator), nothing)
        wins.append((grades > spoilt).float().mean())
        print(f"| {name} | {wins[-1]:.3f} | {spoilt.mean():.2f} |")
    print(f"all pairs: {torch.stack(wins).mean():.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("glyphs", type=Path)
    parser.add_argument("styles", type=Path)
    parser.add_argument("--size", type=int, default=2048, help="glyphs that CLIP and the aesthetic head are tried on")
    args = parser.parse_args()
    plain = StyledGlyphs([args.glyphs], held_out=True)
    print_readers(plain)
    print("CLIP, families of glyphs.npz:")
    print_clip(plain, args.size)
    print("CLIP, with the further display and handwriting families:")
    print_clip(StyledGlyphs([args.glyphs, args.styles], held_out=True), args.size)
    print_aesthetic(plain, args.size)


if __name__ == "__main__":
    main()
