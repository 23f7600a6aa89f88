"""More typefaces, for the verifiers that know styles.

`python -m sitsearch.models.training.glyphs.verifiers.styles OUT.npz`.

`glyphs` itself is drawn from families of which few are display or handwriting and few are monospaced. CLIP learns those
words from these too. They come from where the others do, and the NPZ has the same form: see
`sitsearch.models.training.glyphs.render`. A family in `HELD_OUT_STYLES` is never trained on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

import numpy as np

from sitsearch.models.training.glyphs.families import CLASSES
from sitsearch.models.training.glyphs.render import LICENSES, LIGHTEST, render_face

TRAIN_STYLES = [
    "architects-daughter",
    "delius",
    "gochi-hand",
    "handlee",
    "indie-flower",
    "neucha",
    "patrick-hand",
    "playpen-sans",
    "sriracha",
    "abril-fatface",
    "audiowide",
    "baloo-2",
    "bubblegum-sans",
    "chewy",
    "lemonada",
    "lobster-two",
    "righteous",
    "sniglet",
    "anonymous-pro",
    "cousine",
    "fira-mono",
    "noto-sans-mono",
    "overpass-mono",
    "space-mono",
    "victor-mono",
]

HELD_OUT_STYLES = ["schoolbell", "short-stack", "caveat-brush", "coiny", "lilita-one", "titan-one"]


def install(folder: Path) -> Path:
    """`npm install` the families into `folder`; returns the folder that holds one package a family."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "package.json").exists():
        (folder / "package.json").write_text('{"name": "glyph-styles", "private": true}\n')
    packages = [f"@fontsource/{family}" for family in (*TRAIN_STYLES, *HELD_OUT_STYLES)]
    subprocess.run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", *packages], cwd=folder, check=True)
    return folder / "node_modules" / "@fontsource"


def render_styles(fonts: Path) -> dict[str, np.ndarray]:
    """Every face of every family under `fonts`, as `sitsearch.models.training.glyphs.render` describes.

    Raises:
        ValueError: a family's licence is not one of `LICENSES`.
    """
    masks, faces = [], []
    for family in (*TRAIN_STYLES, *HELD_OUT_STYLES):
        meta = json.loads((fonts / family / "metadata.json").read_text())
        if meta["license"]["type"] not in LICENSES:
            raise ValueError(f"{family} is under {meta['license']['type']}, not one of {sorted(LICENSES)}")
        face = {"family": family, "category": meta["category"], "license": meta["license"]["type"]}
        for path in sorted((fonts / family / "files").glob(f"{family}-latin-[0-9]*.woff2")):
            weight, style = path.stem.removeprefix(f"{family}-latin-").split("-")
            if int(weight) >= LIGHTEST:
                masks.append(render_face(path))
                faces.append(
                    {**face, "weight": int(weight), "italic": style == "italic", "held_out": family in HELD_OUT_STYLES}
                )
    return {
        "masks": np.concatenate(masks),
        "label": np.tile(np.arange(len(CLASSES)), len(faces)),
        "face": np.repeat(np.arange(len(faces)), len(CLASSES)),
        "faces": np.array(json.dumps(faces)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    arrays = render_styles(install(args.out.parent / "styles"))
    np.savez_compressed(args.out, allow_pickle=False, **arrays)
    print(f"{len(arrays['masks'])} glyphs of {len(json.loads(str(arrays['faces'])))} faces in {args.out}")


if __name__ == "__main__":
    main()
