"""Winners of guided searches beside those of others, at equal NFE: a picture to look at.

`python -m sitsearch.workers.studies.guidance_sheet --out docs/guidance` writes `prompts.png` and `classes.png`: a
column for each condition, a row for each search, and under each image its score.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from sitsearch.models.catalog import load_generator, load_verifier
from sitsearch.models.verifiers.base import Verifier
from sitsearch.workers.engine.machine import network_dtype, take_machine
from sitsearch.workers.local import search
from sitsearch.workers.studies.comparison.tasks import TASKS, Asked, Task

#: Searches by their names in the picture: the algorithm, and what it is guided by.
ROWS: Mapping[str, Mapping[str, Any]] = {
    "one sample": {"algorithm": "random", "budget": 0},
    "random": {"algorithm": "random"},
    "lookahead": {"algorithm": "lookahead"},
    "guided": {"algorithm": "fk_steering", "guide": {"unaudited": True}},
    "auto": {"algorithm": "auto", "guide": {"unaudited": True}},
}


def sheet(task: Task, nfe: int, count: int | None, path: Path) -> None:
    """The picture of a task's first `count` conditions, evenly spread, at a budget of `nfe`."""
    generator = load_generator(task.model, dtype=network_dtype("auto", "cpu"))
    verifier = load_verifier(task.selector)
    asked = task.thinned(count).conditions
    rows = {name: [_found(generator, verifier, task, one, nfe, said) for one in asked] for name, said in ROWS.items()}
    _draw(path, asked, rows, f"{task.title}: winners by {task.selector}, {nfe} NFE each")


def _found(
    generator: Any, verifier: Verifier, task: Task, asked: Asked, nfe: int, said: Mapping[str, Any]
) -> tuple[Tensor, float]:
    """The winner of one search, `[H, W, 3]` uint8, and its score."""
    sampler = {"method": task.method, **task.sampler}
    if said["algorithm"] == "fk_steering":
        del sampler["method"]
    whole = int(task.sampler["steps"])
    found = search(
        generator,
        verifier,
        said["algorithm"],
        nfe if "budget" not in said else whole,
        condition=asked.condition,
        sampler=sampler,
        seed=asked.place,
        guide=said.get("guide"),
        batch=64,
    )
    return found.images[0], found.result.images[0].score


def _draw(path: Path, asked: Sequence[Asked], rows: Mapping[str, Sequence[tuple[Tensor, float]]], title: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        len(rows), len(asked), figsize=(1.25 * len(asked) + 1, 1.5 * len(rows) + 1.2), squeeze=False
    )
    for line, (name, cells) in zip(axes, rows.items(), strict=True):
        for axis, (picture, score), one in zip(line, cells, asked, strict=True):
            axis.imshow(picture.numpy(), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.set_xlabel(f"{score:.2f}", fontsize=8, labelpad=2)
            if line is axes[0]:
                axis.set_title(_wrapped(one.id), fontsize=7)
        line[0].set_ylabel(name, fontsize=10)
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _wrapped(text: str) -> str:
    """A condition's name on two or three lines."""
    words, lines = text.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 14:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def main() -> None:
    """Write both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/guidance"))
    parser.add_argument("--nfe", type=int, default=240)
    parser.add_argument("--conditions", type=int, default=12)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    take_machine()
    sheet(TASKS["prompts"], args.nfe, args.conditions, args.out / "prompts.png")
    sheet(TASKS["classes"], args.nfe // 4, args.conditions, args.out / "classes.png")


if __name__ == "__main__":
    main()
