"""`sitsearch verify`: is an image what its file says?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sitsearch.service.cli.searching import LOCAL, Url, err, out
from sitsearch.service.client import Client, Problem

#: What the command ends with, by what was found.
EXIT = {"holds": 0, "fails": 1, "open": 3}
_COLORS = {"holds": "green", "fails": "red", "open": "yellow"}


def verify(
    file: Annotated[Path, typer.Argument(help="a PNG file of a finished search", exists=True, dir_okay=False)],
    spot: Annotated[int, typer.Option(min=0, help="candidates of the log to make and score again, at random")] = 0,
    log: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="the job's log, a round a line; none asks --url")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="look at the image alone, without the log")] = False,
    url: Url = LOCAL,
) -> None:
    """Make an image again by what its file says, and hold it against its job's log.

    The exit code is 0 if all holds, 1 if something fails, 3 if something could not be found out on this machine.
    """
    from sitsearch.workers import verify as verification  # loads what a worker would

    png = file.read_bytes()
    try:
        verdict = verification.verify(png, _log(png, log, offline, url), spot=spot)
    except ValueError as error:
        err.print(f"{file}: {error}", style="red", markup=False, soft_wrap=True)
        raise SystemExit(2) from None
    proof = verdict.proof
    out.print(f"{file}: rank {proof.rank} of job {proof.job}", soft_wrap=True, markup=False)
    for check in verdict.checks:
        out.print(f"[{_COLORS[check.outcome]}]{check.outcome:5}[/] {check.name}: ", end="")
        out.print(check.detail, markup=False, soft_wrap=True)
    raise SystemExit(EXIT[verdict.outcome])


def _log(png: bytes, log: Path | None, offline: bool, url: str) -> list[str] | None:
    """The log to hold the image against.

    Raises:
        ValueError: the file carries no proof.
        Problem: the service does not know the job.
    """
    from sitsearch.workers.jobs.proof import proof_in

    if offline:
        return None
    if log is not None:
        return log.read_text().splitlines()
    with Client(url) as client:
        try:
            return client.log(client.job(proof_in(png).job))
        except Problem as problem:
            if problem.status == 404:
                detail = f"{url} does not know the job: give --log, or --offline to look at the image alone"
                raise Problem(404, {"detail": detail}) from None
            raise
