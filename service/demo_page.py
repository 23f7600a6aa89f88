"""The page that `make demo` saves: one file, with its pictures in it."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 900, 300, 56, 34, 16
COLORS = {"random": "#8a847a", "auto": "#d9531e"}
_STYLE = """
:root { color-scheme: light dark; --paper: #faf8f4; --ink: #1c1a17; --soft: #5f5a52; --line: #e3ded4; }
@media (prefers-color-scheme: dark) { :root { --paper: #131211; --ink: #efebe3; --soft: #aaa49a; --line: #34312d; } }
body { max-width: 960px; margin: 48px auto; padding: 0 24px; background: var(--paper); color: var(--ink);
  font: 16px/1.5 Inter, ui-sans-serif, system-ui, sans-serif; }
h1 { margin: 0 0 4px; font-size: 30px; letter-spacing: -0.02em; }
p { margin: 0 0 28px; color: var(--soft); max-width: 64ch; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 20px; margin-bottom: 36px; }
figure { margin: 0; }
img { display: block; width: 100%; border-radius: 10px; border: 1px solid var(--line); image-rendering: pixelated; }
figure:last-child img { border-color: #d9531e; box-shadow: 0 0 0 3px #d9531e33; }
figcaption { margin-top: 8px; color: var(--soft); }
figcaption b { display: block; color: var(--ink); font-size: 24px; }
figure:last-child b { color: #d9531e; }
svg { display: block; width: 100%; height: auto; margin-bottom: 28px; }
svg text { fill: var(--soft); font-size: 13px; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: 8px 16px 8px 0; border-bottom: 1px solid var(--line); text-align: left; font-weight: 450; }
thead th { color: var(--soft); }
"""


def demo_page(prompt: str, panels: Mapping[str, tuple[bytes, float]], jobs: Mapping[str, Mapping[str, Any]]) -> str:
    """The page.

    Args:
        prompt: what was searched for.
        panels: PNG bytes and score by caption, the winner last.
        jobs: views of the jobs, by the name of their search.
    """
    figures = "".join(
        f'<figure><img src="data:image/png;base64,{base64.b64encode(png).decode()}" alt="{html.escape(title)}">'
        f"<figcaption><b>{score:.3f}</b>{html.escape(title)}</figcaption></figure>"
        for title, (png, score) in panels.items()
    )
    rows = "".join(_row(name, job) for name, job in jobs.items())
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>sitsearch: {html.escape(prompt)}</title>
<style>{_STYLE}</style>
<h1>{html.escape(prompt)}</h1>
<p>The model was told the letter alone. What the picture looks like is left to its noise, and noise can be searched:
numbers are CLIPScore, the agreement with the prompt, by which the search selects.</p>
<div class="panels">{figures}</div>
{_curves({name: job["progress"]["curve"] for name, job in jobs.items()})}
<table><thead><tr><th>search</th><th>best score</th><th>NFE</th><th>gradients</th><th>seconds</th></tr></thead>
<tbody>{rows}</tbody></table>
</html>
"""


def _row(name: str, job: Mapping[str, Any]) -> str:
    progress, took = job["progress"], job["finished_at"] - job["started_at"]
    cells = [f"{progress['best_score']:.3f}", progress["nfe_spent"], progress["gradients_spent"], f"{took:.1f}"]
    return f"<tr><th>{html.escape(name)}</th>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _curves(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Best score so far against NFE, as SVG."""
    points = [point for curve in curves.values() for point in curve]
    most = max(point["nfe"] for point in points)
    low, high = (limit(point["score"] for point in points) for limit in (min, max))
    low, high = low - 0.08 * (high - low or 1), high + 0.08 * (high - low or 1)

    def x(nfe: float) -> float:
        return round(LEFT + (WIDTH - LEFT - 16) * nfe / most, 1)

    def y(score: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - score) / (high - low), 1)

    parts = []
    for part in range(5):
        score = low + (high - low) * part / 4
        parts.append(f'<path d="M{LEFT} {y(score)}H{WIDTH - 16}" stroke="var(--line)"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(score) + 4}" text-anchor="end">{score:.2f}</text>')
        nfe = most * part / 4
        parts.append(f'<text x="{x(nfe)}" y="{HEIGHT - 10}" text-anchor="middle">{nfe:.0f}</text>')
    for name, curve in curves.items():
        color = COLORS.get(name, "currentColor")
        start, *others = curve
        steps = "".join(f"H{x(point['nfe'])}V{y(point['score'])}" for point in others)
        path = f"M{x(start['nfe'])} {y(start['score'])}{steps}H{x(most)}"
        parts.append(f'<path d="{path}" fill="none" stroke="{color}" stroke-width="2.5"/>')
        label = f'y="{y(curve[-1]["score"]) - 8}" text-anchor="end" style="fill: {color}"'
        parts.append(f'<text x="{WIDTH - 20}" {label}>{html.escape(name)}</text>')
    label = f"Best score so far against NFE: {', '.join(curves)}"
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(label)}">{"".join(parts)}</svg>'
