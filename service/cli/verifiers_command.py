"""`sitsearch verifiers`: what the service offers, and `sitsearch verifiers bench`, which measures verifiers here."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Column, Table

from sitsearch.service.cli.searching import LOCAL, Url, err, out
from sitsearch.service.client import Client

app = typer.Typer(help="List the verifiers that the service offers, or measure those of this machine.")


@app.callback(invoke_without_command=True)
def verifiers(context: typer.Context, url: Url = LOCAL) -> None:
    """List the verifiers that the service offers; `bench` measures those of this machine."""
    if context.invoked_subcommand is not None:
        return
    table = Table("verifier", "needs", "models", "title")
    with Client(url) as client:
        for verifier in client.offer("verifiers"):
            table.add_row(
                verifier["name"], ", ".join(verifier["needs"]), ", ".join(verifier["models"]), verifier["title"]
            )
    out.print(table)


@app.command()
def bench(
    names: Annotated[
        list[str] | None, typer.Argument(help="cards or kinds of verifiers; without one, all that fit the model")
    ] = None,
    model: Annotated[str, typer.Option(help="whose pictures are scored")] = "glyphs",
    samples: Annotated[int, typer.Option(min=2, help="pictures to sample and score")] = 248,
    steps: Annotated[int, typer.Option(min=1, help="Euler steps of each; few, so that some fail")] = 3,
    device: Annotated[str, typer.Option(help="where model and verifiers run")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
) -> None:
    """Measure verifiers on this machine, without a service: speed, accuracy, and agreement with one another."""
    # Imported here so that the other commands start without torch.
    from sitsearch.workers.studies import verifier_bench

    try:
        found = verifier_bench.bench(names or None, model=model, samples=samples, steps=steps, device=device, say=_say)
    except ValueError as error:
        err.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    if as_json:
        out.print_json(data=found)
        return
    for table in tables(found):
        out.print(table)


def _say(line: str) -> None:
    err.print(line, style="yellow", markup=False, soft_wrap=True)


def tables(found: dict[str, Any]) -> tuple[Table, Table]:
    """Speed and accuracy, and rank correlations, of what `sitsearch.workers.studies.verifier_bench.bench` found."""
    each = found["verifiers"]
    sizes = list(next(iter(each.values()))["images_per_second"]) if each else []
    title = f"images/s on {found['device']}, {found['threads']} threads; share of labelled pictures read rightly"
    speed = Table("verifier", *(Column(f"batch {size}", justify="right") for size in sizes), "accuracy", title=title)
    for name, row in each.items():
        right = row["accuracy"]
        rates = [f"{row['images_per_second'][size]:,.0f}" for size in sizes]
        speed.add_row(name, *rates, "-" if right is None else f"{right:.1%}")
    title = f"rank correlation on {found['samples']} pictures of {found['model']} in {found['steps']} steps"
    agreement = Table("", *(Column(name, justify="right") for name in each), title=title)
    for name, row in found["agreement"].items():
        agreement.add_row(name, *("-" if row[other] is None else f"{row[other]:.2f}" for other in each))
    return speed, agreement
