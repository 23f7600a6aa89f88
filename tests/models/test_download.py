"""Fetching weights over real HTTP, from servers that behave and servers that do not."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from sitsearch.models.card_files import RemoteFile
from sitsearch.models.checksums import SUMS
from sitsearch.models.download import Pulled, download, pull
from sitsearch.models.errors import BadCard, ChecksumMismatch, DownloadFailed, UnknownCard
from sitsearch.models.fetching.plain import ATTEMPTS, LONGEST_PAUSE
from sitsearch.service.cli.models_command import app
from tests.models.file_server import FileServer, serve

#: Larger than what the loopback's buffers swallow at once.
CONTENT = os.urandom(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = os.urandom(2_000_000)
ETAG = '"first"'


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve({"net.pt": CONTENT}, etags={"net.pt": ETAG}) as running:
        yield running


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(follow_redirects=True) as made:
        yield made


def fetch(server: FileServer, client: httpx.Client, path: Path, *, sha256: str = "", **known: int) -> str:
    file = RemoteFile(path="net.pt", url=f"{server.url}/net.pt", sha256=sha256, **known)
    return download(file, path, client=client, pause=0.001)


def test_a_file_arrives_whole_with_its_sha256_and_its_progress(server: FileServer, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    with httpx.Client() as client:
        digest = download(
            RemoteFile(path="net.pt", url=f"{server.url}/net.pt"),
            tmp_path / "deep" / "net.pt",
            client=client,
            progress=lambda file, done, total: told.append((done, total)),
        )
    assert digest == SHA256
    assert (tmp_path / "deep" / "net.pt").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["net.pt"]
    assert told[-1] == (len(CONTENT), len(CONTENT)) and told == sorted(told)


def test_a_connection_dropped_midway_is_resumed_where_it_broke(
    server: FileServer, client: httpx.Client, tmp_path: Path
) -> None:
    server.drops = [1_000_000, 500_000]
    assert fetch(server, client, tmp_path / "net.pt") == SHA256
    ranges = [asked for _, asked, _ in server.requests]
    assert ranges == [None, "bytes=1000000-", "bytes=1500000-"]
    assert [condition for _, _, condition in server.requests] == [None, ETAG, ETAG]


def test_a_connection_may_break_any_number_of_times_while_bytes_come(
    server: FileServer, client: httpx.Client, tmp_path: Path
) -> None:
    server.drops = [200_000] * (2 * ATTEMPTS)
    assert fetch(server, client, tmp_path / "net.pt") == SHA256
    assert len(server.requests) == 2 * ATTEMPTS + 1


def test_a_later_run_goes_on_from_what_an_earlier_one_left(
    server: FileServer, client: httpx.Client, tmp_path: Path
) -> None:
    server.drops = [1_000_000] + [0] * (ATTEMPTS + 1)
    with pytest.raises(DownloadFailed, match="what arrived is kept"):
        fetch(server, client, tmp_path / "net.pt")
    assert not (tmp_path / "net.pt").exists() and (tmp_path / "net.pt.part").stat().st_size == 1_000_000
    server.drops = []
    assert fetch(server, client, tmp_path / "net.pt") == SHA256
    assert server.requests[-1] == ("net.pt", "bytes=1000000-", ETAG)


def test_a_part_that_is_already_whole_needs_no_more_bytes(
    server: FileServer, client: httpx.Client, tmp_path: Path
) -> None:
    (tmp_path / "net.pt.part").write_bytes(CONTENT)
    assert fetch(server, client, tmp_path / "net.pt", sha256=SHA256) == SHA256
    assert server.requests == [("net.pt", f"bytes={len(CONTENT)}-", None)]


def test_a_server_that_ignores_ranges_sends_it_all_again(
    server: FileServer, client: httpx.Client, tmp_path: Path
) -> None:
    server.ranges, server.drops = False, [1_000_000]
    assert fetch(server, client, tmp_path / "net.pt") == SHA256
    assert (tmp_path / "net.pt").read_bytes() == CONTENT


def test_a_file_that_changed_between_two_tries_is_not_mixed(
    server: FileServer, client: httpx.Client, tmp_path: Path
) -> None:
    server.drops = [1_000_000] + [0] * (ATTEMPTS + 1)
    with pytest.raises(DownloadFailed):
        fetch(server, client, tmp_path / "net.pt")
    server.drops, server.files["net.pt"], server.etags["net.pt"] = [], OTHER, '"second"'
    fetch(server, client, tmp_path / "net.pt")
    assert (tmp_path / "net.pt").read_bytes() == OTHER


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_etag_only_a_pinned_file_is_resumed(
    server: FileServer, client: httpx.Client, tmp_path: Path, etag: str | None
) -> None:
    server.etags = {"net.pt": etag} if etag else {}
    server.drops = [1_000_000]
    assert fetch(server, client, tmp_path / "loose") == SHA256
    assert [asked for _, asked, _ in server.requests] == [None, None]
    server.requests.clear()
    server.drops = [1_000_000]
    assert fetch(server, client, tmp_path / "pinned", sha256=SHA256) == SHA256
    assert [asked for _, asked, _ in server.requests] == [None, "bytes=1000000-"]


def test_a_wrong_checksum_is_refused_and_what_was_there_stays(
    server: FileServer, client: httpx.Client, tmp_path: Path
) -> None:
    target = tmp_path / "net.pt"
    target.write_bytes(b"older")
    wrong = "0" * 64
    with pytest.raises(ChecksumMismatch, match=f"{SHA256}, but {wrong} is pinned"):
        fetch(server, client, target, sha256=wrong)
    assert target.read_bytes() == b"older" and list(tmp_path.iterdir()) == [target]


def test_a_busy_server_is_asked_again(server: FileServer, client: httpx.Client, tmp_path: Path) -> None:
    server.statuses, server.headers = [503, 429], {"Retry-After": "0"}
    assert fetch(server, client, tmp_path / "net.pt") == SHA256
    assert len(server.requests) == 3


def test_a_server_that_stays_away_is_given_up(client: httpx.Client, tmp_path: Path) -> None:
    with serve({}) as gone:
        pass
    with pytest.raises(DownloadFailed, match="cannot fetch"):
        fetch(gone, client, tmp_path / "net.pt")


@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_is_final(server: FileServer, client: httpx.Client, tmp_path: Path, status: int) -> None:
    server.statuses = [status] * 2
    with pytest.raises(DownloadFailed, match=f"answered {status}"):
        fetch(server, client, tmp_path / "net.pt")
    assert len(server.requests) == 1


def test_a_web_page_in_place_of_the_file_is_refused(server: FileServer, client: httpx.Client, tmp_path: Path) -> None:
    server.headers = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(DownloadFailed, match="web page"):
        fetch(server, client, tmp_path / "net.pt")


def test_another_size_than_the_cards_is_refused_before_it_is_fetched(
    server: FileServer, client: httpx.Client, tmp_path: Path
) -> None:
    with pytest.raises(DownloadFailed, match=f"offers {len(CONTENT)} bytes; the card says 7"):
        fetch(server, client, tmp_path / "net.pt", size=7)
    assert (tmp_path / "net.pt.part").stat().st_size == 0


def test_more_than_the_cards_size_is_refused_where_the_server_names_none(tmp_path: Path) -> None:
    def endless(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=iter([b"12345", b"678"]))  # no Content-Length

    file = RemoteFile(path="net.pt", url="http://there/net.pt", size=7)
    client = httpx.Client(transport=httpx.MockTransport(endless))
    with client, pytest.raises(DownloadFailed, match="sends more than the 7 bytes that the card says"):
        download(file, tmp_path / "net.pt", client=client)
    assert (tmp_path / "net.pt.part").stat().st_size == 0 and not (tmp_path / "net.pt").exists()


def test_the_pause_that_a_server_asks_for_is_kept_up_to_the_longest(
    server: FileServer, client: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", slept.append)
    for asked in ("7", "900"):
        server.statuses, server.headers = [503], {"Retry-After": asked}
        fetch(server, client, tmp_path / asked)
    assert slept == [7.0, LONGEST_PAUSE]


def test_redirects_are_followed(server: FileServer, client: httpx.Client, tmp_path: Path) -> None:
    file = RemoteFile(path="net.pt", url=f"{server.url}/old/net.pt")
    assert download(file, tmp_path / "net.pt", client=client) == SHA256


def test_a_file_that_another_process_is_fetching_is_left_to_it(
    server: FileServer, client: httpx.Client, tmp_path: Path
) -> None:
    with (tmp_path / "net.pt.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DownloadFailed, match="another process"):
            fetch(server, client, tmp_path / "net.pt")
    assert server.requests == []


@pytest.fixture
def card(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A card `far` of one unpinned file, in a folder of cards; weights go to `tmp_path / "weights"`."""
    folder = tmp_path / "cards"
    folder.mkdir()
    (folder / "far.toml").write_text(f'name = "far"\n[[files]]\npath = "net.pt"\nurl = "{server.url}/net.pt"\n')
    monkeypatch.setenv("SITSEARCH_CARDS_DIR", str(folder))
    monkeypatch.setenv("SITSEARCH_WEIGHTS_DIR", str(tmp_path / "weights"))
    return folder / "far.toml"


def test_pull_puts_a_cards_files_in_place_and_notes_their_sums(card: Path, tmp_path: Path) -> None:
    (pulled,) = pull("far")
    place = tmp_path / "weights" / "far"
    assert pulled == Pulled(pulled.file, place / "net.pt", SHA256, fetched=True) and not pulled.pinned
    checked = subprocess.run(["sha256sum", "--check", SUMS], cwd=place, capture_output=True, text=True)
    assert checked.stdout == "net.pt: OK\n"


def test_pull_fetches_again_only_what_is_damaged(card: Path, server: FileServer, tmp_path: Path) -> None:
    (first,) = pull("far")
    (again,) = pull("far")
    assert first.fetched and not again.fetched and len(server.requests) == 1
    first.path.write_bytes(b"torn")
    (mended,) = pull("far")
    assert mended.fetched and mended.path.read_bytes() == CONTENT


def test_pull_goes_to_the_folder_it_is_given(card: Path, tmp_path: Path) -> None:
    (pulled,) = pull("far", tmp_path / "elsewhere")
    assert pulled.path == tmp_path / "elsewhere" / "far" / "net.pt"


def test_cards_without_addresses_or_with_files_outside_their_folder_are_refused(card: Path) -> None:
    with pytest.raises(UnknownCard, match=r"there are .*far"):
        pull("nope")
    with pytest.raises(BadCard, match="nothing to fetch"):
        pull("glyphs")
    card.write_text(card.read_text().replace('path = "net.pt"', 'path = "../net.pt"'))
    with pytest.raises(BadCard, match=r"files.0.path: .*inside the model's folder"):
        pull("far")


def test_the_command_says_plainly_what_is_not_pinned_and_how_to_pin_it(card: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["pull", "far", "--to", str(tmp_path / "there")])
    assert result.exit_code == 0, result.output
    assert f"SHA-256 {SHA256}  not pinned" in result.stdout
    assert f"export SITSEARCH_WEIGHTS_DIR={tmp_path / 'there'}" in result.stdout
    assert "Not pinned: net.pt." in result.stderr and str(card) in result.stderr
    card.write_text(card.read_text() + f'sha256 = "{SHA256}"\n')
    pinned = CliRunner().invoke(app, ["pull", "far", "--to", str(tmp_path / "there")])
    assert "already there" in pinned.stdout and "as the card pins it" in pinned.stdout
    assert "Not pinned" not in pinned.stderr


def test_the_command_ends_with_1_and_the_reason_when_it_cannot_fetch(card: Path, server: FileServer) -> None:
    server.files.clear()
    result = CliRunner().invoke(app, ["pull", "far"])
    assert result.exit_code == 1 and "answered 404" in result.stderr


def test_fetching_needs_no_torch() -> None:
    code = (
        "import sys, sitsearch.models.download, sitsearch.service.cli.models_command; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
