"""Render the typefaces to grey coverage masks: `python -m sitsearch.models.training.glyphs.render OUT.npz`.

Every face is scaled to one height of capitals and set on one baseline, so that glyphs fill most of the 32-pixel
frame while upper and lower case keep their relative size and position. The result is an NPZ with

    masks [N, 32, 32] uint8 (0 background, 255 ink), label [N] int, face [N] int (index into `faces`),
    faces: JSON list of {family, category, weight, italic, license, held_out}, one a face.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sitsearch.models.training.glyphs.families import CLASSES, HELD_OUT_FAMILIES, TRAIN_FAMILIES

SIZE = 32
MARGIN = 1
CAP_HEIGHT = 23
BASELINE = 25
OVERSAMPLING = 4
LIGHTEST = 200  # hairlines of weight 100 vanish at this size
LICENSES = {"OFL-1.1", "Apache-2.0"}


def install_fonts(folder: Path) -> Path:
    """`npm install` the typeface packages into `folder`; returns the folder that holds one package a family."""
    folder.mkdir(parents=True, exist_ok=True)
    packages = [f"@fontsource/{family}" for family in (*TRAIN_FAMILIES, *HELD_OUT_FAMILIES)]
    if not (folder / "package.json").exists():
        (folder / "package.json").write_text('{"name": "glyph-fonts", "private": true}\n')
    subprocess.run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", *packages], cwd=folder, check=True)
    return folder / "node_modules" / "@fontsource"


def render_face(path: Path) -> np.ndarray:
    """The 62 glyphs of one face, `[62, 32, 32]` uint8."""
    unit = ImageFont.truetype(str(path), 200)
    _, cap_top, _, _ = unit.getbbox("H", anchor="ls")
    font = ImageFont.truetype(str(path), 200 * CAP_HEIGHT * OVERSAMPLING / -cap_top)
    return np.stack([render_glyph(font, char) for char in CLASSES])


def render_glyph(font: ImageFont.FreeTypeFont, char: str) -> np.ndarray:
    """One glyph `[32, 32]` uint8, centred across; what would leave the frame is moved up or squeezed to fit."""
    left, top, right, bottom = (int(edge) for edge in font.getbbox(char, anchor="ls"))
    ink = Image.new("L", (right - left, bottom - top), 0)
    ImageDraw.Draw(ink).text((-left, -top), char, fill=255, font=font, anchor="ls")
    room = (SIZE - 2 * MARGIN) * OVERSAMPLING
    ink = ink.resize((min(ink.width, room), min(ink.height, room)), Image.Resampling.LANCZOS)
    highest, lowest = MARGIN * OVERSAMPLING, (SIZE - MARGIN) * OVERSAMPLING - ink.height
    y = min(max(BASELINE * OVERSAMPLING + top, highest), lowest)
    frame = Image.new("L", (SIZE * OVERSAMPLING, SIZE * OVERSAMPLING), 0)
    frame.paste(ink, ((frame.width - ink.width) // 2, y))
    return np.asarray(frame.resize((SIZE, SIZE), Image.Resampling.BOX))


def render_all(fonts: Path) -> dict[str, np.ndarray]:
    """Every face of every family under `fonts`, as the arrays this module's docstring describes."""
    masks, faces = [], []
    for family in (*TRAIN_FAMILIES, *HELD_OUT_FAMILIES):
        meta = json.loads((fonts / family / "metadata.json").read_text())
        if meta["license"]["type"] not in LICENSES:
            raise ValueError(f"{family} is under {meta['license']['type']}, not one of {sorted(LICENSES)}")
        for path in sorted((fonts / family / "files").glob(f"{family}-latin-[0-9]*.woff2")):
            weight, style = path.stem.removeprefix(f"{family}-latin-").split("-")
            if int(weight) < LIGHTEST:
                continue
            masks.append(render_face(path))
            faces.append(
                {
                    "family": family,
                    "category": meta["category"],
                    "weight": int(weight),
                    "italic": style == "italic",
                    "license": meta["license"]["type"],
                    "held_out": family in HELD_OUT_FAMILIES,
                }
            )
    count = len(faces)
    return {
        "masks": np.concatenate(masks),
        "label": np.tile(np.arange(len(CLASSES)), count),
        "face": np.repeat(np.arange(count), len(CLASSES)),
        "faces": np.array(json.dumps(faces)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fonts", type=Path, help="folder of npm packages (default: installed next to OUT)")
    args = parser.parse_args()
    fonts = args.fonts or install_fonts(args.out.parent / "fonts")
    arrays = render_all(fonts)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.out, allow_pickle=False, **arrays)
    print(f"{len(arrays['masks'])} glyphs of {len(json.loads(str(arrays['faces'])))} faces in {args.out}")


if __name__ == "__main__":
    main()
