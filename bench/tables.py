"""Reports as Markdown: what is printed, and what stands in `tables.md` beside the JSON files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def markdown(found: Mapping[str, Any]) -> str:
    """One part's tables, claims and notes, from what its JSON file says."""
    where = found["machine"]
    lines = [
        f"## {found['title']}",
        "",
        f"`{where['command']}`, {where['seconds']} s; {where['device']}, torch {where['torch']}, "
        f"{where['threads']} threads, load average {where['load']} at the end.",
    ]
    for columns, rows in _tables(found["rows"]):
        lines += ["", *_table(columns, rows)]
    if found["claims"]:
        lines += ["", *_table(("what", "measured", "asked", "held"), map(_claim, found["claims"]))]
    lines += ["", *found["notes"]] if found["notes"] else []
    return "\n".join(lines) + "\n"


def write(out: Path, parts: Iterable[str]) -> None:
    """All parts that have a JSON file in `out`, in one file."""
    files = [out / f"{part}.json" for part in parts]
    texts = [markdown(json.loads(file.read_text())) for file in files if file.exists()]
    head = (
        "# Measured\n\nWritten by `python -m bench`: medians (smallest to largest). What they mean: ../benchmarks.md\n"
    )
    (out / "tables.md").write_text("\n".join([head, *texts]))


def _claim(claim: Mapping[str, Any]) -> dict[str, Any]:
    sign = "at least" if claim["least"] else "at most"
    held = "yes" if claim["held"] else "**no**"
    return {"what": claim["what"], "measured": claim["value"], "asked": f"{sign} {claim['bound']:g}", "held": held}


def _tables(rows: Iterable[Mapping[str, Any]]) -> list[tuple[tuple[str, ...], list[Mapping[str, Any]]]]:
    """Rows with the same columns, together."""
    tables: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        tables.setdefault(tuple(row), []).append(row)
    return list(tables.items())


def _table(columns: tuple[str, ...], rows: Iterable[Mapping[str, Any]]) -> list[str]:
    cells = [columns, *(tuple(_text(row[column]) for column in columns) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = ["| " + " | ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)) + " |" for line in cells]
    return [lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{_text(value['median'])} ({_text(value['low'])} to {_text(value['high'])})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
