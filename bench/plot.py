"""One picture of what was measured: `benchmarks.png` beside the JSON files."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

Painter = Callable[[Axes, list[dict[str, Any]]], None]


def draw(out: Path) -> None:
    """Draw the parts whose figures are in `out`."""
    mixed = [("c", partial(_mixed, forwards=forwards)) for forwards in ("full", "some sizes")]
    painters: list[tuple[str, Painter]] = [("a", _ceiling), ("b", _static), *mixed, ("e", _jobs)]
    known = [(part, paint) for part, paint in painters if (out / f"{part}.json").exists()]
    if not known:
        return
    figure, axes = plt.subplots(1, len(known), figsize=(4.6 * len(known), 3.8), squeeze=False)
    for (part, paint), axis in zip(known, axes[0], strict=True):
        paint(axis, json.loads((out / f"{part}.json").read_text())["rows"])
    figure.tight_layout()
    figure.savefig(out / "benchmarks.png", dpi=110)
    plt.close(figure)


def _bars(found: list[dict[str, float]]) -> list[list[float]]:
    """Error bars from median to the extremes."""
    return [[one["median"] - one["low"] for one in found], [one["high"] - one["median"] for one in found]]


def _line(axis: Axes, x: list[float], found: list[dict[str, float]], label: str) -> None:
    axis.errorbar(x, [one["median"] for one in found], yerr=_bars(found), marker="o", capsize=3, label=label)


def _ceiling(axis: Axes, rows: list[dict[str, Any]]) -> None:
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        _line(axis, [row["offered"] for row in own], [row["ratio"] for row in own], model)
    axis.axhline(0.95, color="grey", linestyle=":")
    label = "engine / bare network at its best"
    axis.set(xscale="log", ylim=(0, 1.3), xlabel="offered batch", ylabel=label, title="(a)")
    axis.legend()


def _static(axis: Axes, rows: list[dict[str, Any]]) -> None:
    rates = [row["images/s"] for row in rows]
    axis.barh([row["what"] for row in rows], [rate["median"] for rate in rates], xerr=_bars(rates), capsize=3)
    axis.invert_yaxis()
    axis.set(xlabel="images/s", title="(b)")


def _mixed(axis: Axes, rows: list[dict[str, Any]], forwards: str) -> None:
    shown = [row for row in rows if row["forwards"] == forwards]
    for name in dict.fromkeys(row["batching"] for row in shown):
        own = [row for row in shown if row["batching"] == name]
        _line(axis, [row["load"] for row in own], [row["goodput NFE/s"] for row in own], name)
    axis.set(
        xlabel="offered load / capacity", ylabel="goodput, NFE/s", ylim=(0, None), title=f"(c) forwards: {forwards}"
    )
    axis.legend()


def _jobs(axis: Axes, rows: list[dict[str, Any]]) -> None:
    own = [row for row in rows if "jobs queued" in row]
    _line(axis, [row["jobs queued"] for row in own], [row["engine, us a job"] for row in own], "engine")
    axis.set(xscale="log", ylim=(0, None), xlabel="jobs queued", ylabel="us a job", title="(e)")
