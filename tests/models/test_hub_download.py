"""Fetching weights from a hub: huggingface_hub itself, against a hub on the loopback."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from huggingface_hub import constants
from pydantic import ValidationError
from typer.testing import CliRunner

from sitsearch.models.card_files import HubFile, RemoteFile
from sitsearch.models.checksums import read_sums
from sitsearch.models.download import download, pull
from sitsearch.models.errors import ChecksumMismatch, DownloadFailed
from sitsearch.service.cli.models_command import app
from tests.models.file_server import serve
from tests.models.hub_server import HubServer, serve_hub

#: Larger than what the loopback's buffers swallow at once.
WEIGHTS = os.urandom(3_000_000)
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
CONFIG = b'{"width": 8}'
FIRST, SECOND = "1" * 40, "2" * 40


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """Two commits of `far/net`; the weights are a large file, and the branch `main` is at the second commit."""
    files = {"deep/net.safetensors": WEIGHTS, "config.json": CONFIG}
    commits = {FIRST: files, SECOND: files | {"config.json": b'{"width": 16}'}}
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    # neither the token nor the cache of who runs the tests
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with serve_hub("far/net", commits, branches={"main": SECOND}, large={"deep/net.safetensors"}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def weights(**known: object) -> RemoteFile:
    return RemoteFile.model_validate(
        {"path": "net.safetensors", "repo": "far/net", "file": "deep/net.safetensors", **known}
    )


def config(**known: object) -> RemoteFile:
    return RemoteFile.model_validate({"path": "config.json", "repo": "far/net", **known})


def fetch(file: RemoteFile, folder: Path) -> str:
    with httpx.Client() as client:
        return download(file, folder / file.path, client=client)


def test_a_file_of_a_repository_arrives_alone_with_its_sha256_and_its_progress(hub: HubServer, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    place = tmp_path / "there" / "net.safetensors"
    with httpx.Client() as client:
        digest = download(
            weights(sha256=SHA256, size=len(WEIGHTS)),
            place,
            client=client,
            progress=lambda file, done, total: told.append((done, total)),
        )
    assert digest == SHA256 and place.read_bytes() == WEIGHTS
    assert list(place.parent.iterdir()) == [place] and not place.is_symlink()
    assert told[-1] == (len(WEIGHTS), len(WEIGHTS)) and told == sorted(told) and len(told) > 2
    assert not (tmp_path / "cache").exists()


def test_a_broken_connection_is_resumed_where_it_broke(hub: HubServer, tmp_path: Path) -> None:
    hub.drops = [1_000_000, 500_000]
    assert fetch(weights(), tmp_path) == SHA256
    ranges = [int(each.range.removeprefix("bytes=").removesuffix("-")) for each in hub.requests if each.range]
    # huggingface_hub writes in pieces of 100 kB here, and loses the one that the connection broke in
    assert len(ranges) == 2 and 500_000 < ranges[0] <= 1_000_000 < ranges[1] <= 1_500_000


def test_a_file_that_another_process_is_fetching_is_left_to_it(hub: HubServer, tmp_path: Path) -> None:
    with (tmp_path / "net.safetensors.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DownloadFailed, match="another process"):
            fetch(weights(), tmp_path)
    assert not hub.requests


def test_what_a_killed_process_left_is_cleared_away(hub: HubServer, tmp_path: Path) -> None:
    left = tmp_path / "net.safetensors.hub" / ".cache" / "half.incomplete"
    left.parent.mkdir(parents=True)
    left.write_bytes(WEIGHTS[:1000])
    (tmp_path / "net.safetensors.part").touch()
    assert fetch(weights(), tmp_path) == SHA256
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_the_revision_that_is_named_is_the_one_that_is_asked_for(hub: HubServer, tmp_path: Path) -> None:
    for revision, content in ((FIRST, CONFIG), ("main", b'{"width": 16}')):
        hub.requests.clear()
        fetch(config(revision=revision), tmp_path)
        assert (tmp_path / "config.json").read_bytes() == content
        assert hub.requests[0].path == f"/far/net/resolve/{revision}/config.json"
        commit = hub.branches.get(revision, revision)  # a branch is looked up once, and its commit fetched
        assert {each.path for each in hub.requests[1:]} == {f"/far/net/resolve/{commit}/config.json"}


@pytest.mark.parametrize("file", [weights(sha256="0" * 64), config(sha256="0" * 64)])
def test_a_file_that_is_not_the_pinned_one_is_thrown_away(hub: HubServer, tmp_path: Path, file: RemoteFile) -> None:
    (tmp_path / file.path).write_bytes(b"older")
    with pytest.raises(ChecksumMismatch, match=r"0{64} is pinned; it is thrown away"):
        fetch(file, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [file.path]
    assert (tmp_path / file.path).read_bytes() == b"older"


def test_without_a_pin_a_large_file_must_be_the_one_that_the_hub_names(hub: HubServer, tmp_path: Path) -> None:
    hub.tampered["deep/net.safetensors"] = WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1])
    with pytest.raises(ChecksumMismatch, match=f"{SHA256} is what the hub names"):
        fetch(weights(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_size_than_the_cards_is_refused_before_it_is_fetched(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match=f"offers {len(WEIGHTS)} bytes; the card says 7"):
        fetch(weights(size=7), tmp_path)
    assert [each.method for each in hub.requests] == ["HEAD"] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("token", [None, "of-another"])
def test_a_gated_repository_says_what_to_do(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    hub.gated = "secret"
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(DownloadFailed, match=rf"{hub.url}/far/net is gated: accept its licence .* set HF_TOKEN"):
        fetch(weights(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_token_opens_a_gated_repository_and_goes_to_the_hub_alone(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated = "secret"
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert fetch(weights(), tmp_path) == SHA256
    stored = [each for each in hub.requests if each.path.startswith("/stored/")]
    assert stored and all(each.token is None for each in stored)
    assert all(each.token == "secret" for each in hub.requests if each not in stored)


def test_the_token_goes_to_no_other_address(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    hub.large.clear()
    address = f"http://localhost:{hub.port}/far/net/resolve/main/config.json"  # the hub is http://127.0.0.1
    fetch(RemoteFile(path="config.json", url=address), tmp_path)
    assert [each.token for each in hub.requests] == [None]


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (config(repo="far/nothing"), "far/nothing is not there, or is private"),
        (config(revision="v9"), "far/net has no revision 'v9'"),
        (config(file="nothing.json", revision=FIRST), f"far/net has no file 'nothing.json' at revision '{FIRST}'"),
    ],
)
def test_what_is_not_there_is_named(hub: HubServer, tmp_path: Path, file: RemoteFile, said: str) -> None:
    with pytest.raises(DownloadFailed, match=said):
        fetch(file, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_hub_that_stays_away_is_given_up(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve({}) as gone:
        pass
    monkeypatch.setenv("HF_ENDPOINT", gone.url)
    with pytest.raises(DownloadFailed, match=f"cannot fetch {gone.url}/far/net"):
        fetch(weights(), tmp_path)


def test_offline_nothing_is_fetched(hub: HubServer, tmp_path: Path) -> None:
    card = 'name = "far"\n[[files]]\npath = "config.json"\nrepo = "far/net"\n'
    (tmp_path / "far.toml").write_text(card)
    # huggingface_hub reads it when it is imported
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "SITSEARCH_CARDS_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "sitsearch.service.cli", "models", "pull", "far", "--to", str(tmp_path / "to")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 1 and "HF_HUB_OFFLINE forbids it" in ended.stderr and not hub.requests


def test_a_url_of_the_hub_is_a_file_of_its_repository(hub: HubServer, tmp_path: Path) -> None:
    for endpoint in ("https://huggingface.co", hub.url):
        file = RemoteFile(path="net.safetensors", url=f"{endpoint}/far/net/resolve/{FIRST}/deep/net.safetensors")
        assert file.hub == HubFile("far/net", "deep/net.safetensors", FIRST)
        assert fetch(file, tmp_path) == SHA256
        assert hub.requests[0].path == f"/far/net/resolve/{FIRST}/deep/net.safetensors"
    branch = RemoteFile(path="a", url=f"{hub.url}/far/net/resolve/refs%2Fpr%2F1/a%20b?download=true")
    assert branch.hub == HubFile("far/net", "a b", "refs/pr/1")
    for path in ("datasets/far/resolve/main/a", "datasets/far/net/resolve/main/a", "far/net/blob/main/a"):
        assert RemoteFile(path="a", url=f"{hub.url}/{path}").hub is None


@pytest.mark.parametrize(
    "given", [{}, {"url": "http://there/a", "repo": "far/net"}, {"url": "http://there/a", "revision": "main"}]
)
def test_a_file_has_either_a_url_or_a_repo(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match=r"either url or repo|go with repo"):
        RemoteFile.model_validate({"path": "a", **given})


def test_the_command_pulls_from_a_hub_and_from_elsewhere_and_notes_the_sums(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SITSEARCH_CARDS_DIR", str(tmp_path))
    with serve({"a.bin": b"plain"}) as elsewhere:
        (tmp_path / "far.toml").write_text(
            f'name = "far"\n[[files]]\npath = "a.bin"\nurl = "{elsewhere.url}/a.bin"\n'
            f'[[files]]\npath = "net.pt"\nrepo = "far/net"\nfile = "deep/net.safetensors"\nsha256 = "{SHA256}"\n'
        )
        result = CliRunner().invoke(app, ["pull", "far", "--to", str(tmp_path / "to")])
    assert result.exit_code == 0, result.output
    assert f"SHA-256 {SHA256}  as the card pins it" in result.stdout
    place = tmp_path / "to" / "far"
    assert sorted(path.name for path in place.iterdir()) == ["SHA256SUMS", "a.bin", "net.pt"]
    assert read_sums(place) == {"a.bin": hashlib.sha256(b"plain").hexdigest(), "net.pt": SHA256}
    asked = len(hub.requests)
    (_, again) = pull("far", tmp_path / "to")
    assert not again.fetched and len(hub.requests) == asked


def test_fetching_from_a_hub_needs_no_torch() -> None:
    code = "import sys, sitsearch.models.fetching.hub; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
