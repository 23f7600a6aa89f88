"""`python -m bench` measures everything, `python -m bench a c` parts of it.

Prints tables and what was asked of the figures, and writes `{part}.json` and a plot into `--out`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import tables
from bench.common import OUT, Report, Setting, machine

PARTS = {
    "a": "ceiling",
    "b": "static_loop",
    "c": "mixed_load",
    "d": "service",
    "e": "jobs",
    "f": "device",
    "g": "control_plane",
    "h": "guided_load",
    "i": "log_sizes",
    "scale": "scale",
}
#: Of the network; 0 is all cores. Fewer serve to measure beside other work, whose turns would hold all of them up.
THREADS = int(os.environ.get("OMP_NUM_THREADS", "0"))


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=", ".join(f"{part}: {module}" for part, module in PARTS.items()))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="go through every line; the figures mean nothing")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave networks as they are")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args(arguments)
    unknown = sorted({*args.parts} - {*PARTS})
    if unknown:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    logging.basicConfig(level=logging.WARNING)
    args.out.mkdir(parents=True, exist_ok=True)
    setting = Setting(args.device, args.quick, args.compile, args.out)
    for part in args.parts or PARTS:
        measure(part, setting)


def measure(part: str, setting: Setting) -> Report:
    """Run one part, print what it found and write it down."""
    import torch

    from sitsearch.workers.engine.machine import take_machine

    take_machine()
    if THREADS:
        torch.set_num_threads(THREADS)
    begin = time.monotonic()
    report: Report = importlib.import_module(f"bench.{PARTS[part]}").run(setting)
    seconds = time.monotonic() - begin
    claims = [asdict(claim) | {"held": claim.held} for claim in report.claims]
    where = machine(setting.device) | {"command": f"python -m bench {part}", "seconds": round(seconds)}
    found = {"title": report.title, "machine": where, "rows": report.rows, "claims": claims, "notes": report.notes}
    text = json.dumps(_rounded(found), indent=1)
    (setting.out / f"{part}.json").write_text(text + "\n")
    print(tables.markdown(json.loads(text)), flush=True)
    tables.write(setting.out, PARTS)
    if not setting.quick:
        from bench.plot import draw

        draw(setting.out)
    return report


def _rounded(value: Any) -> Any:
    """Four digits say all that such figures can."""
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
