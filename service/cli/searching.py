"""`sitsearch generate`, `search` and `plan`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from sitsearch.service.cli.options import takes_request
from sitsearch.service.client import Client
from sitsearch.workers.search.runs.target import LEAST

out, err = Console(highlight=False), Console(stderr=True, highlight=False)

Url = Annotated[str, typer.Option("--url", envvar="SITSEARCH_URL", help="address of the service")]
LOCAL = "http://127.0.0.1:8000"


@takes_request
def generate(
    request: dict[str, Any],
    save: Annotated[Path, typer.Option("--out", help="folder for PNG and JSON")] = Path("."),
    local: Annotated[bool, typer.Option("--local", help="search in this process, without a service")] = False,
    url: Url = LOCAL,
) -> None:
    """Search for the best image that the budget buys; saves `<job>-<rank>.png` and `<job>.json`.

    With `--local`, `<job>.log` has its rounds, for `sitsearch verify`.
    """
    if local:
        from sitsearch.service.cli.local import search_here

        with bar_of(unit_of(request["budget"])) as show:
            name, record, images, rounds = search_here(request, watch=show)
        store(save, name, record, images)
        (save / f"{name}.log").write_text("".join(f"{entry}\n" for entry in rounds))
        return
    with Client(url) as client:
        follow(client, client.submit(request), save)


@takes_request
def plan(request: dict[str, Any], url: Url = LOCAL) -> None:
    """Show how the budget of such a search would be spent, and about how long it would take; submits nothing."""
    with Client(url) as client:
        answer = client.plan(request)
    for line in answer["plan"]["explanation"]:
        out.print(line, soft_wrap=True)
    if answer["seconds"] is not None:
        out.print(f"about {answer['seconds']:.1f} s on an idle service")


def follow(client: Client, job: dict[str, Any], folder: Path) -> None:
    """Watch a job to its end and save what it found.

    Raises:
        SystemExit: the job did not succeed; its record is saved all the same.
    """
    with bar_of("nfe" if job["progress"]["nfe_budget"] else "forwards") as show:
        job = client.wait(job, watch=show)
    if job["status"] != "succeeded":
        store(folder, job["id"], job, [])
        detail = (job.get("error") or {}).get("detail", "")
        err.print(f"job {job['id']} {job['status']} {detail}", style="red", markup=False)
        raise SystemExit(1)
    store(folder, job["id"], job, client.images(job))


def store(folder: Path, name: str, record: dict[str, Any], images: list[bytes]) -> None:
    """Save a record and its images, and say what they are."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    for rank, png in enumerate(images):
        path = folder / f"{name}-{rank}.png"
        path.write_bytes(png)
        out.print(f"{path}  score {record['result']['images'][rank]['score']:.4f}", soft_wrap=True)
    if spent := sum(count for name, count in (record.get("usage") or {}).items() if name.startswith("gradients")):
        out.print(f"guided by {record['request']['guide']['verifier']}: {spent:,} gradients")
    for warning in (record.get("result") or {}).get("warnings", ()):
        err.print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)
    if images:
        progress = record["progress"]
        out.print(
            f"{record['result']['candidates']} candidates, {progress['nfe_spent']} NFE, "
            f"{progress['forwards_spent']} forwards; {folder / name}.json has the whole record",
            soft_wrap=True,
        )


def unit_of(budget: dict[str, Any]) -> str:
    """The unit in which progress is shown."""
    return "nfe" if budget.get("nfe") else "forwards"


@contextmanager
def bar_of(unit: str) -> Iterator[Any]:
    """A bar of the budget spent, the best score so far and the way to the target; yields what shows a job's state."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
        TextColumn("best {task.fields[best]}{task.fields[target]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err) as bar:
        task = bar.add_task("starting", total=1, unit=unit.upper() if unit == "nfe" else unit, best="-", target="")

        def show(job: dict[str, Any]) -> None:
            progress, best, position = job["progress"], job["progress"]["best_score"], job.get("queue_position")
            queued = job["status"] == "queued" and position is not None
            bar.update(
                task,
                total=progress[f"{unit}_budget"],
                completed=progress[f"{unit}_spent"],
                description=f"queued ({position} ahead)" if queued else job["status"],
                best="-" if best is None else f"{best:.4f}",
                target=way_to(progress.get("target")),
            )

        yield show


def way_to(target: dict[str, Any] | None) -> str:
    """What a bar says of the target, after the best score; nothing where there is none."""
    if target is None:
        return ""
    text = f", target {target['score']:g}"
    if target["reached"]:
        return f"{text} reached"
    if target["probability"] is None:
        return f"{text}: {'out of sight' if target['seen'] >= LEAST else '-'}"
    return (
        f"{text}: expected after {_nfe(target['nfe_expected'], target['nfe_left'])}, "
        f"with {target['confidence']:g} after {_nfe(target['nfe_confident'], target['nfe_left'])}"
    )


def _nfe(needed: int | None, left: int) -> str:
    return "more than the budget" if needed is None or needed > left else f"{needed:,} NFE"
