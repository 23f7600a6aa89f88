"""The commands of `sitsearch`."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.table import Column, Table

from sitsearch.service.cli import models_command, verifiers_command
from sitsearch.service.cli.searching import LOCAL, Url, err, follow, generate, out, plan
from sitsearch.service.cli.verify_command import verify
from sitsearch.service.client import Client, Problem
from sitsearch.workers.errors import SitsearchError
from sitsearch.workers.jobs.request import Condition
from sitsearch.workers.settings import settings

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Spend inference-time compute on better images.")
app.add_typer(models_command.app, name="models")
app.add_typer(verifiers_command.app, name="verifiers")
for name, command in (("generate", generate), ("search", generate), ("plan", plan), ("verify", verify)):
    app.command(name)(command)


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
    from sitsearch.service.cli.supervisor import StartError, supervise

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
        table = Table(Column("job", no_wrap=True, min_width=32), "status", "of", "search", "NFE", "best")
        for job in client.jobs():
            request, progress = job["request"], job["progress"]
            best = progress["best_score"]
            table.add_row(
                job["id"],
                job["status"],
                _drawn(Condition.model_validate(request["condition"])),
                request["search"]["algorithm"],
                f"{progress['nfe_spent']}/{progress['nfe_budget'] or '-'}",
                "-" if best is None else f"{best:.4f}",
            )
        out.print(table)


def _drawn(condition: Condition) -> str:
    first, *others = condition.each
    text = str(first.prompt if first.class_ is None else first.class_)
    return f"{text} and {len(others)} more" if others else text


@app.command()
def cancel(job_id: Annotated[str, typer.Argument(help="the job")], url: Url = LOCAL) -> None:
    """Cancel a job; one that has ended stays as it is."""
    with Client(url) as client:
        job = client.cancel(client.job(job_id))
        out.print(f"{job['id']} {job['status']}")


@app.command()
def extend(
    job_id: Annotated[str, typer.Argument(help="a job that has succeeded")],
    nfe: Annotated[int, typer.Option(help="its new budget in function evaluations, in all")],
    save: Annotated[Path, typer.Option("--out", help="folder for PNG and JSON")] = Path("."),
    url: Url = LOCAL,
) -> None:
    """Let a finished search go on from its state with a larger budget; saves as `generate` does."""
    with Client(url) as client:
        follow(client, client.extend(client.job(job_id), nfe), save)


@app.command()
def resume(
    job_id: Annotated[str, typer.Argument(help="a job that failed or was canceled")],
    save: Annotated[Path, typer.Option("--out", help="folder for PNG and JSON")] = Path("."),
    url: Url = LOCAL,
) -> None:
    """Let a search that failed or was canceled go on from where it ended; saves as `generate` does."""
    with Client(url) as client:
        follow(client, client.resume(client.job(job_id)), save)


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
