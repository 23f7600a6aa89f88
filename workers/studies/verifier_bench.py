"""What each verifier costs, whom it agrees with and how often it is right: the numbers of `sitsearch verifiers bench`.

All verifiers score one set of pictures that the model sampled in few steps, so that failures are among them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sitsearch.models.catalog import ROOT, known_cards, load_generator, load_verifier, model_card, verifier_card
from sitsearch.models.condition import Condition
from sitsearch.models.errors import BadWeights, MissingLibrary, UnknownCard
from sitsearch.models.verifiers.base import Verifier
from sitsearch.models.verifiers.scoring import Scorer
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.engine.judge import pixels
from sitsearch.workers.engine.machine import take_machine
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.jobs.request import SamplerChoice
from sitsearch.workers.local import sample_all
from sitsearch.workers.search.runs.selection import rank_correlation

#: Batch sizes at which speed is measured.
BATCHES = (1, 8, 32, 128)
#: Kinds that are their own cards and are measured unasked.
STATISTICS = ("contrast", "sharpness")
#: Images of one call wherever speed is not what is measured.
SCORED = 32
#: A speed is the median of so many calls, or of as many as fit into so many seconds.
CALLS, SECONDS = 9, 2.0


def bench(
    names: Sequence[str] | None = None,
    *,
    model: str = "glyphs",
    samples: int = 248,
    steps: int = 3,
    batches: Sequence[int] = BATCHES,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure verifiers side by side.

    Args:
        names: verifier cards, or kinds that stand alone; None for all that fit the model and load here.
        model: whose pictures they score.
        samples: how many pictures, over all classes in turn.
        steps: Euler steps of each, unguided; few, for bad pictures too.
        batches: sizes at which speed is measured.
        device: where model and verifiers run.
        say: is told what was left out, and why.

    Returns:
        `{"model", "samples", "steps", "device", "threads", "verifiers": {name: {"images_per_second": {size: rate},
        "accuracy": share or None}}, "agreement": {name: {name: Spearman's rank correlation}}}`, None where
        that is not defined. Accuracy is the share
        of the model's labelled pictures (`checkpoints/MODEL_held_out.npz`) whose own class scores highest of all;
        None for a verifier that asks neither class nor prompt, or without such pictures.

    Raises:
        UnknownCard, BadCard, BadWeights, MissingLibrary: there is no such model or verifier, or it does not load.
    """
    take_machine()
    pictures, previews, conditions = sampled(model, samples, steps=steps, device=device)
    speeds, accuracies, scores = {}, {}, {}
    for name in fitting(model) if names is None else names:
        try:
            verifier = load_verifier(name, device=device)
        except (BadWeights, MissingLibrary) as error:
            if names is not None:
                raise
            say(f"{name}: left out, {error}")
            continue
        scores[name] = Scorer(verifier, batch=SCORED).score(pictures, conditions, previews=previews)
        speeds[name] = {
            str(size): images_per_second(verifier, pictures, previews, conditions, size) for size in batches
        }
        accuracies[name] = accuracy(verifier, model)
    return {
        "model": model,
        "samples": samples,
        "steps": steps,
        "device": device,
        "threads": torch.get_num_threads(),
        "verifiers": {n: {"images_per_second": speeds[n], "accuracy": accuracies[n]} for n in scores},
        "agreement": {a: {b: rank_correlation(scores[a], scores[b]) for b in scores} for a in scores},
    }


def fitting(model: str) -> list[str]:
    """The verifiers of the model's pictures that need nothing from elsewhere: cards, and statistics."""
    found = list(STATISTICS)
    for name in known_cards():
        try:
            models = verifier_card(name).models
        except UnknownCard:  # a model's card
            continue
        if not models or model in models:
            found.append(name)
    return sorted(found)


def sampled(model: str, count: int, *, steps: int, device: str = "cpu") -> tuple[Tensor, Tensor, list[Condition]]:
    """Pictures `[count, H, W, 3]` uint8 of the model's classes in turn, their previews, and what was asked of each."""
    card = model_card(model)
    sampler = SamplerChoice(method="euler", steps=steps, guidance=1.0)
    wanted = [everything(card.classes, card.template)[i % len(card.classes)] for i in range(count)]
    whole = Integrate(to=1.0, steps=steps)
    recipes = [Recipe(seed=0, round=0, index=i).then(whole) for i in range(count)]
    orders = [Order(r, c, sampler, preview=True) for r, c in zip(recipes, wanted, strict=True)]
    engine = Engine(load_generator(model, device=device), batch=64, deterministic=False)
    samples = sample_all(engine, orders)
    previews = [sample.preview for sample in samples if sample.preview is not None]
    return torch.stack([sample.image for sample in samples]), torch.stack(previews), wanted


def everything(classes: Sequence[str], template: str) -> list[Condition]:
    """Every class, with its text."""
    return [Condition(class_index=i, prompt=template.format(name)) for i, name in enumerate(classes)]


def images_per_second(
    verifier: Verifier, pictures: Tensor, previews: Tensor, conditions: Sequence[Condition], size: int
) -> float:
    """Pictures scored in a second in calls of `size`, from pixels on the CPU to scores on the CPU."""
    index = [i % len(pictures) for i in range(size)]
    images, early = pixels(pictures[index]), pixels(previews[index])
    wanted = [conditions[i] for i in index]
    verifier.score(images, wanted, previews=early)  # texts are encoded once, and a first call is slower
    begin = time.perf_counter()
    seconds: list[float] = []
    while len(seconds) < CALLS and (not seconds or time.perf_counter() - begin < SECONDS):
        start = time.perf_counter()
        verifier.score(images, wanted, previews=early)
        seconds.append(time.perf_counter() - start)
    return size / statistics.median(seconds)


def accuracy(verifier: Verifier, model: str) -> float | None:
    """Share of the model's labelled pictures whose own class gets the highest score; see `bench`."""
    path = ROOT / "checkpoints" / f"{model}_held_out.npz"
    if not verifier.needs & {"class", "prompt"} or not path.exists():
        return None
    with np.load(path, allow_pickle=False) as labelled:
        pictures, labels = torch.from_numpy(labelled["images"]), torch.from_numpy(labelled["labels"])
    if hasattr(verifier, "log_probabilities"):  # all classes at once
        guesses = [verifier.log_probabilities(pixels(part)).argmax(dim=1) for part in pictures.split(SCORED)]
        return (torch.cat(guesses) == labels).float().mean().item()
    card = model_card(model)
    scorer = Scorer(verifier, batch=SCORED)
    columns = [
        scorer.score(pictures, [condition] * len(pictures)) for condition in everything(card.classes, card.template)
    ]
    return (torch.tensor(columns).argmax(dim=0) == labels).float().mean().item()
