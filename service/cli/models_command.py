"""`sitsearch models`: what the service offers, and `sitsearch models pull`, which fetches published weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from sitsearch.service.cli.searching import LOCAL, Url, err, out
from sitsearch.service.client import Client

if TYPE_CHECKING:
    from sitsearch.models.download import Pulled

app = typer.Typer(help="List the models that the service offers, or fetch the weights of one.")


@app.callback(invoke_without_command=True)
def models(context: typer.Context, url: Url = LOCAL) -> None:
    """List the models that the service offers; `pull` fetches the weights of one."""
    if context.invoked_subcommand is not None:
        return
    table = Table("model", "parameters", "MACs/forward", "samplers", "classes", "title")
    with Client(url) as client:
        for model in client.offer("models"):
            classes = model["classes"]
            table.add_row(
                model["name"],
                f"{model['parameters'] / 1e6:.1f} M",
                f"{model['macs_per_forward'] / 1e9:.2f} G",
                ", ".join(sampler["name"] for sampler in model["samplers"]),
                f"{len(classes)}: {classes[0]} ... {classes[-1]}" if classes else "prompt",
                model["title"],
            )
    out.print(table)


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="name of the card")],
    to: Annotated[
        Path | None,
        typer.Option(
            help="where NAME's folder goes; by default SITSEARCH_WEIGHTS_DIR, or sitsearch in the user's cache"
        ),
    ] = None,
) -> None:
    """Fetch a model's weights; a download whose connection breaks goes on where it stopped."""
    # Imported here so that the other commands start without it.
    from sitsearch.models.download import pull
    from sitsearch.models.errors import ModelError

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as bar:
        tasks = {}

        def show(path: str, done: int, total: int | None) -> None:
            if path not in tasks:
                tasks[path] = bar.add_task(escape(path), total=total)
            bar.update(tasks[path], completed=done, total=total)

        try:
            pulled = pull(name, to, progress=lambda file, done, total: show(file.path, done, total))
        except ModelError as error:
            bar.stop()
            err.print(str(error), style="red", markup=False, soft_wrap=True)
            raise typer.Exit(1) from None
    _report(name, pulled, to)


def _report(name: str, pulled: list[Pulled], to: Path | None) -> None:
    from sitsearch.models.card_files import read_card

    for each in pulled:
        state = "fetched" if each.fetched else "already there"
        pin = "as the card pins it" if each.pinned else "not pinned"
        out.print(f"{each.path}  {state}\n  SHA-256 {each.sha256}  {pin}", markup=False, soft_wrap=True)
    loose = [each.file.path for each in pulled if not each.pinned]
    if loose:
        err.print(
            f"Not pinned: {', '.join(loose)}. The card gives no SHA-256, so nothing shows that these are the files "
            "that were published. Compare the SHA-256 above with a source you trust. To pin it, write it as `sha256` "
            f"under the file's [[files]] in {read_card(name).path}, or in a copy of that card in a folder that "
            "SITSEARCH_CARDS_DIR names. Until then, loads are checked against this download.",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
    if to is not None:
        out.print(f"To load from there: export SITSEARCH_WEIGHTS_DIR={to.absolute()}", markup=False, soft_wrap=True)
