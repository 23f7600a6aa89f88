"""`make demo`: one search from start to end on real parts, and a picture of what it bought.

Starts the whole service on a free port, runs the search over HTTP, saves the worst and the median candidate of the
first round (what single samples look like) beside the winner with the score curve, and stops everything.
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
from sitsearch.workers.jobs.request import MAX_IMAGES

HOST = "127.0.0.1"
FIRST_ROUND = 16
STEPS, NFE_PER_CANDIDATE = 20, 40
START_TIMEOUT, STOP_TIMEOUT = 200.0, 60.0


def request(label: str, candidates: int, seed: int) -> dict[str, Any]:
    """A random search over `candidates` noises of class `label` that keeps every image."""
    return {
        "model": "glyphs",
        "condition": {"class": label},
        "budget": {"nfe": candidates * NFE_PER_CANDIDATE},
        "num_images": candidates,
        "seed": seed,
        "verifier": "classifier",
        "search": {"algorithm": "random", "round_size": FIRST_ROUND},
        "sampler": {"method": "heun", "steps": STEPS, "guidance": 1.5},
    }


def first_round(job: dict[str, Any]) -> tuple[int, int]:
    """Ranks of the median and of the worst image of round 0: what single samples look like."""
    ranks = [image["rank"] for image in job["result"]["images"] if image["candidate"]["recipe"]["round"] == 0]
    return int(ranks[len(ranks) // 2]), int(ranks[-1])


def draw(label: str, images: list[bytes], job: dict[str, Any], path: Path) -> None:
    """Worst and median single sample beside the winner, with the score curve."""
    scores = [image["score"] for image in job["result"]["images"]]
    middle, worst = first_round(job)
    median = scores[middle]
    figure, (*panels, right) = plt.subplots(1, 4, figsize=(13, 3.6), width_ratios=(1, 1, 1, 1.7), layout="constrained")
    titles = ("worst single sample", "median single sample", f"winner of {job['result']['candidates']}")
    for axes, rank, title in zip(panels, (worst, middle, 0), titles, strict=True):
        axes.imshow(imread(io.BytesIO(images[rank])), interpolation="nearest")
        axes.set_title(f"{title}\nlog p = {scores[rank]:.3f}")
        axes.set_axis_off()
    curve = job["progress"]["curve"]
    right.plot([p["nfe"] for p in curve], [p["score"] for p in curve], marker="o", label="best so far")
    right.axhline(median, linestyle="--", color="gray", label="median single sample")
    right.set(xlabel="NFE", ylabel="log-probability of the class", title=f"random search for {label!r}")
    right.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--class", dest="label", default="m")
    parser.add_argument(
        "--candidates",
        type=int,
        choices=range(FIRST_ROUND, MAX_IMAGES + 1),
        metavar=f"{FIRST_ROUND}..{MAX_IMAGES}",
        default=48,
    )
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
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
            job = client.wait(client.submit(request(args.label, args.candidates, args.seed)))
            if job["status"] != "succeeded":
                raise SystemExit(f"job {job['id']} {job['status']}: {job['error']}")
            images = client.images(job)
        finally:
            service.send_signal(signal.SIGINT)
            service.wait(STOP_TIMEOUT)
    middle, worst = first_round(job)
    median, lowest = (job["result"]["images"][rank]["score"] for rank in (middle, worst))
    (args.out / "before.png").write_bytes(images[middle])
    (args.out / "after.png").write_bytes(images[0])
    (args.out / "job.json").write_text(json.dumps(job, indent=2) + "\n")
    draw(args.label, images, job, args.out / "result.png")
    progress = job["progress"]
    print(
        f"{args.label!r}: the median of {FIRST_ROUND} single samples scores {median:.4f}, the worst {lowest:.4f}; "
        f"the best of {job['result']['candidates']} scores {progress['best_score']:.4f}, "
        f"for {progress['nfe_spent']} of {progress['nfe_budget']} NFE ({progress['forwards_spent']} forwards)"
    )
    print(f"picture: {args.out / 'result.png'}; the whole record: {args.out / 'job.json'}")


if __name__ == "__main__":
    main()
