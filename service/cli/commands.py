"""The commands of `sitsearch`."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from service.client import Client, Problem
from workers.errors import SitsearchError
from workers.settings import settings

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Spend inference-time compute on better images.")
out, err = Console(highlight=False), Console(stderr=True, highlight=False)

Url = Annotated[str, typer.Option("--url", envvar="SITSEARCH_URL", help="address of the service")]
LOCAL = "http://127.0.0.1:8000"


def main() -> None:
    """Entry point: refusals and absent services become one clear message and exit code 1."""
    try:
        app()
    except Problem as problem:
        err.print(f"refused ({problem.status}): {problem}", style="red", markup=False)
        raise SystemExit(1) from None
    except httpx.TransportError as error:
        err.print(f"cannot reach the service: {error}; is `sitsearch serve` running?", style="red", markup=False)
        raise SystemExit(1) from None


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="address to listen on")] = None,
    port: Annotated[int | None, typer.Option(help="port to listen on; 0 takes a free one")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="folder of the embedded store and the logs")] = None,
) -> None:
    """Run everything on this machine: store, workers and gateway, until Ctrl-C."""
    from service.cli.supervisor import StartError, supervise

    given = {"host": host, "port": port, "data_dir": data_dir}
    config = settings().model_copy(update={key: value for key, value in given.items() if value is not None})
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        supervise(config, say=lambda line: out.print(line, soft_wrap=True), stop=stop)
    except (StartError, SitsearchError) as error:
        err.print(str(error), style="red", markup=False, soft_wrap=True)
        raise SystemExit(1) from None


def _option(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


@app.command()
def generate(
    class_: Annotated[str, typer.Option("--class", help="what to draw: a class name or index")],
    nfe: Annotated[int | None, typer.Option(help="budget in function evaluations [default: 2000]")] = None,
    forwards: Annotated[int | None, typer.Option(help="budget in network rows")] = None,
    model: Annotated[str, typer.Option(help="model to search over")] = "glyphs",
    verifier: Annotated[str, typer.Option(help="verifier that selects")] = "classifier",
    search: Annotated[str, typer.Option(help="search algorithm")] = "random",
    option: Annotated[list[str] | None, typer.Option(help="an option of the algorithm, NAME=VALUE")] = None,
    method: Annotated[str, typer.Option(help="sampling method")] = "heun",
    steps: Annotated[int, typer.Option(help="sampling steps of a candidate")] = 20,
    final_steps: Annotated[int | None, typer.Option(help="sampling steps of the winner's re-generation")] = None,
    guidance: Annotated[float, typer.Option(help="guidance scale; 1 is unguided")] = 1.5,
    num_images: Annotated[int, typer.Option(help="how many of the best to keep")] = 1,
    seed: Annotated[int, typer.Option(help="seed of every random draw")] = 0,
    save: Annotated[Path, typer.Option("--out", help="folder for PNG and JSON")] = Path("."),
    url: Url = LOCAL,
) -> None:
    """Search for the best image that the budget buys; saves `<job>-<rank>.png` and `<job>.json`."""
    budget = {"nfe": nfe if nfe or forwards else 2000, "forwards": forwards}
    sampler = {"method": method, "steps": steps, "guidance": guidance, "final_steps": final_steps}
    request = {
        "model": model,
        "condition": {"class": class_},
        "num_images": num_images,
        "seed": seed,
        "budget": {key: value for key, value in budget.items() if value is not None},
        "verifier": verifier,
        "search": {"algorithm": search} | dict(_option(text) for text in option or ()),
        "sampler": {key: value for key, value in sampler.items() if value is not None},
    }
    with Client(url) as client:
        job = client.submit(request)
        job = _watch(client, job)
        save.mkdir(parents=True, exist_ok=True)
        (save / f"{job['id']}.json").write_text(json.dumps(job, indent=2) + "\n")
        if job["status"] != "succeeded":
            detail = (job.get("error") or {}).get("detail", "")
            err.print(f"job {job['id']} {job['status']} {detail}", style="red", markup=False)
            raise SystemExit(1)
        for rank, (image, png) in enumerate(zip(job["result"]["images"], client.images(job), strict=True)):
            path = save / f"{job['id']}-{rank}.png"
            path.write_bytes(png)
            out.print(f"{path}  score {image['score']:.4f}", soft_wrap=True)
        progress = job["progress"]
        out.print(
            f"{job['result']['candidates']} candidates, {progress['nfe_spent']} NFE, "
            f"{progress['forwards_spent']} forwards; {save / job['id']}.json has the whole record",
            soft_wrap=True,
        )


def _watch(client: Client, job: dict[str, Any]) -> dict[str, Any]:
    """Wait for the job's end with a bar of the budget spent and the best score so far."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
        TextColumn("best {task.fields[best]}"),
        TimeElapsedColumn(),
    )
    unit = "nfe" if job["progress"]["nfe_budget"] else "forwards"
    with Progress(*columns, console=err) as bar:
        task = bar.add_task(
            job["status"],
            total=job["progress"][f"{unit}_budget"],
            unit=unit.upper() if unit == "nfe" else unit,
            best="-",
        )

        def show(current: dict[str, Any]) -> None:
            progress = current["progress"]
            best = progress["best_score"]
            position = current.get("queue_position")
            queued = current["status"] == "queued" and position is not None
            bar.update(
                task,
                completed=progress[f"{unit}_spent"],
                description=f"queued ({position} ahead)" if queued else current["status"],
                best="-" if best is None else f"{best:.4f}",
            )

        return client.wait(job, watch=show)


@app.command()
def status(
    job_id: Annotated[str | None, typer.Argument(help="a job; without one, the newest are listed")] = None,
    url: Url = LOCAL,
) -> None:
    """Show a job, or list the newest ones."""
    with Client(url) as client:
        if job_id is not None:
            out.print_json(data=client.job(job_id))
            return
        # a job's id is there to be copied: it is never cut
        table = Table(Column("job", no_wrap=True, min_width=32), "status", "class", "search", "NFE", "best")
        for job in client.jobs():
            request, progress = job["request"], job["progress"]
            best = progress["best_score"]
            table.add_row(
                job["id"],
                job["status"],
                str(request["condition"].get("class")),
                request["search"]["algorithm"],
                f"{progress['nfe_spent']}/{progress['nfe_budget'] or '-'}",
                "-" if best is None else f"{best:.4f}",
            )
        out.print(table)


@app.command()
def cancel(job_id: Annotated[str, typer.Argument(help="the job")], url: Url = LOCAL) -> None:
    """Cancel a job; one that has ended stays as it is."""
    with Client(url) as client:
        job = client.cancel(client.job(job_id))
        out.print(f"{job['id']} {job['status']}")


@app.command()
def models(url: Url = LOCAL) -> None:
    """List the models that the service offers."""
    table = Table("model", "parameters", "MACs/forward", "samplers", "classes", "title")
    with Client(url) as client:
        for model in client.offer("models"):
            methods = ", ".join(sampler["name"] for sampler in model["samplers"])
            classes = model["classes"]
            table.add_row(
                model["name"],
                f"{model['parameters'] / 1e6:.1f} M",
                f"{model['macs_per_forward'] / 1e9:.2f} G",
                methods,
                f"{len(classes)}: {classes[0]} ... {classes[-1]}",
                model["title"],
            )
    out.print(table)


@app.command()
def verifiers(url: Url = LOCAL) -> None:
    """List the verifiers that the service offers."""
    table = Table("verifier", "needs", "models", "title")
    with Client(url) as client:
        for verifier in client.offer("verifiers"):
            table.add_row(
                verifier["name"], ", ".join(verifier["needs"]), ", ".join(verifier["models"]), verifier["title"]
            )
    out.print(table)


@app.command()
def algorithms(url: Url = LOCAL) -> None:
    """List the search algorithms that the service offers, with their options."""
    table = Table("algorithm", "options", "title", "reference")
    with Client(url) as client:
        for algorithm in client.offer("algorithms"):
            options = algorithm["options_schema"].get("properties", {})
            shown = ", ".join(f"{name}={schema.get('default')}" for name, schema in options.items())
            table.add_row(algorithm["name"], shown, algorithm["title"], algorithm["reference"])
    out.print(table)
