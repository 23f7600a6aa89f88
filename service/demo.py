"""`make demo`: a prompt searched for twice on real parts, and a page that shows what search and guidance buy.

Starts the whole service on a free port and searches over HTTP: at random, and by the default search, which the
verifier's gradient guides. Saves a page, and a picture of the same, with what single samples look like beside both
winners and the curves of score against NFE, and stops everything.
"""

from __future__ import annotations

import argparse
import io
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.image import imread

from sitsearch.service.cli.supervisor import free_port
from sitsearch.service.client import Client
from sitsearch.service.demo_page import demo_page
from sitsearch.workers.jobs.request import MAX_IMAGES

HOST = "127.0.0.1"
#: So many first candidates show what single samples look like; 20 Euler steps are 20 NFE.
SINGLE, STEPS = 16, 20
START_TIMEOUT, STOP_TIMEOUT = 320.0, 60.0


def request(prompt: str, label: str, nfe: int, seed: int, algorithm: str) -> dict[str, Any]:
    """A search for `prompt` of the character `label`; random search keeps its first images too."""
    return {
        "model": "glyphs",
        "condition": {"class": label, "prompt": prompt},
        "budget": {"nfe": nfe},
        "num_images": nfe // STEPS if algorithm == "random" else 1,
        "seed": seed,
        "verifier": "clip_score",
        "auditors": ["auditor"],
        "search": algorithm,
        "sampler": {"method": "euler", "steps": STEPS, "guidance": 1.5},
    }


def singles(job: dict[str, Any]) -> list[int]:
    """Ranks of the candidates of round 0, best first: what single samples look like."""
    return [image["rank"] for image in job["result"]["images"] if image["candidate"]["recipe"]["round"] == 0]


def first(job: dict[str, Any]) -> int:
    """The rank of the very first candidate."""
    recipes = [image["candidate"]["recipe"] for image in job["result"]["images"]]
    return next(rank for rank, recipe in enumerate(recipes) if recipe["round"] == recipe["index"] == 0)


def draw(prompt: str, panels: dict[str, tuple[bytes, float]], jobs: dict[str, dict[str, Any]], path: Path) -> None:
    """Pictures with what they are and score, and the curves of the jobs."""
    width = (*(1 for _ in panels), 1.7)
    figure, (*places, right) = plt.subplots(
        1, len(width), figsize=(3 * len(panels) + 5, 3.8), width_ratios=width, layout="constrained"
    )
    for axes, (title, (png, score)) in zip(places, panels.items(), strict=True):
        axes.imshow(imread(io.BytesIO(png)), interpolation="nearest")
        axes.set_title(f"{title}\nCLIPScore {score:.2f}")
        axes.set_axis_off()
    for name, job in jobs.items():
        curve = job["progress"]["curve"]
        right.step([p["nfe"] for p in curve], [p["score"] for p in curve], where="post", marker="o", label=name)
    right.set(xlabel="NFE", ylabel="CLIPScore of the best so far")
    right.legend()
    right.grid(alpha=0.3)
    figure.suptitle(f'"{prompt}"')
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--prompt", default="a bold red italic serif Q on white")
    parser.add_argument("--class", dest="label", default="Q", help="the prompt's character")
    parser.add_argument("--nfe", type=int, default=480, help="budget of each search")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    if not SINGLE * STEPS <= args.nfe <= MAX_IMAGES * STEPS:
        parser.error(f"--nfe must be from {SINGLE * STEPS} to {MAX_IMAGES * STEPS}, not {args.nfe}")
    args.out.mkdir(parents=True, exist_ok=True)
    port = free_port(HOST)
    with tempfile.TemporaryDirectory(prefix="sitsearch-demo-") as data, Client(f"http://{HOST}:{port}") as client:
        command = [sys.executable, "-m", "sitsearch.service.cli", "serve", "--port", str(port), "--data-dir", data]
        service = subprocess.Popen(command)
        try:
            deadline = time.monotonic() + START_TIMEOUT
            while not client.ready():
                if service.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("the service did not start")
                time.sleep(0.2)
            jobs, images = {}, {}
            for name in ("random", "auto"):
                job = client.wait(client.submit(request(args.prompt, args.label, args.nfe, args.seed, name)))
                if job["status"] != "succeeded":
                    raise SystemExit(f"job {job['id']} {job['status']}: {job['error']}")
                jobs[name], images[name] = job, client.images(job)
        finally:
            service.send_signal(signal.SIGINT)
            service.wait(STOP_TIMEOUT)
    ranks = singles(jobs["random"])
    shown = {
        "the first sample": ("random", first(jobs["random"])),
        "a median sample": ("random", ranks[len(ranks) // 2]),
        f"the best of {args.nfe // STEPS}": ("random", 0),
        "the default search": ("auto", 0),
    }
    panels = {
        title: (images[name][rank], jobs[name]["result"]["images"][rank]["score"])
        for title, (name, rank) in shown.items()
    }
    (args.out / "before.png").write_bytes(panels["a median sample"][0])
    (args.out / "after.png").write_bytes(images["auto"][0])
    (args.out / "job.json").write_text(json.dumps(jobs, indent=2) + "\n")
    draw(args.prompt, panels, jobs, args.out / "result.png")
    (args.out / "index.html").write_text(demo_page(args.prompt, panels, jobs))
    print(f"{args.prompt!r}, CLIPScore:")
    for title, (_, score) in panels.items():
        print(f"  {title:24s} {score:.3f}")
    for name, job in jobs.items():
        progress = job["progress"]
        print(
            f"{name}: {progress['nfe_spent']} of {progress['nfe_budget']} NFE, "
            f"{progress['gradients_spent']} gradients; hacking: {', '.join(job['result']['hacking']) or 'no sign'}"
        )
    print(f"page: {(args.out / 'index.html').resolve().as_uri()}")
    print(f"picture: {args.out / 'result.png'}; both records: {args.out / 'job.json'}")


if __name__ == "__main__":
    main()
