"""A file of a repository on a hub (huggingface.co, or what `HF_ENDPOINT` names), through huggingface_hub.

The library does the transfer: the commit, the token (`HF_TOKEN`), redirects, Xet storage, and going on after a broken
connection. It keeps no part of a file when it gives up or is stopped; the next call begins that file anew.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from huggingface_hub import get_hf_file_metadata, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import tqdm

from sitsearch.models.card_files import HubFile, RemoteFile, hub_endpoint
from sitsearch.models.errors import DownloadFailed
from sitsearch.models.fetching import Progress, check_offer


def fetch(file: RemoteFile, hub: HubFile, folder: Path, progress: Progress | None) -> tuple[Path, str]:
    """Fetch the file into a folder of its own.

    Args:
        file: what the card says of it.
        hub: where it is on the hub.
        folder: new, and the caller's to remove: huggingface_hub keeps its own notes in it as well.
        progress: told of each piece.

    Returns:
        Where the file is, and the SHA-256 that the hub says it has; empty for a small file, kept in Git itself.

    Raises:
        DownloadFailed: the repository, its revision or the file is not there, or is not shown to this user; the hub
            cannot be reached; the file has another size than the card says; or the disk is full.
    """
    endpoint = hub_endpoint()
    try:
        found = get_hf_file_metadata(hub.address, endpoint=endpoint, retry_on_errors=True)
        check_offer(file, folder.parent, found.size)
        arrived = hf_hub_download(
            hub.repo,
            hub.file,
            # what was just looked up, even if a branch moves on in between
            revision=found.commit_hash or hub.revision,
            local_dir=folder,
            endpoint=endpoint,
            tqdm_class=_bar(file, progress),
        )
    except DownloadFailed:
        raise
    except Exception as error:  # those of httpx2, hf_xet and the system have no base in common
        raise DownloadFailed(_reason(hub, error)) from error
    # the ETag of a large file (LFS, Xet) is its SHA-256; that of a small one is its Git blob's SHA-1
    published = found.etag or ""
    return Path(arrived), published if re.fullmatch("[0-9a-f]{64}", published) else ""


def _bar(file: RemoteFile, progress: Progress | None) -> type[tqdm]:
    """The progress bar that huggingface_hub is to drive: it shows nothing, and tells `progress`."""

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options | {"disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if progress is not None:
                progress(file, int(self.n), self.total)

        # with this, a download from Xet storage makes one bar, of the file's bytes, and no second of the network's
        def update_transfer(self, n: float) -> None:
            pass

        def set_transfer_postfix_str(self, s: str = "", refresh: bool = True) -> None:
            pass

    return Bar


def _reason(hub: HubFile, error: Exception) -> str:
    """What went wrong, and what to do about it."""
    page = f"{hub_endpoint()}/{hub.repo}"
    match error:
        case GatedRepoError():
            return f"{page} is gated: accept its licence on that page, and set HF_TOKEN to a token of your account"
        case RevisionNotFoundError():
            return f"{page} has no revision {hub.revision!r}"
        case RemoteEntryNotFoundError():
            return f"{page} has no file {hub.file!r} at revision {hub.revision!r}"
        case RepositoryNotFoundError():
            return f"{page} is not there, or is private: then set HF_TOKEN to a token that may read it"
        case OfflineModeIsEnabled():
            return f"cannot fetch {hub.address}: HF_HUB_OFFLINE forbids it"
        case HfHubHTTPError() if error.response.status_code in (401, 403):
            return f"{page} refuses the request; check the token in HF_TOKEN: {_line(error)}"
    return f"cannot fetch {hub.address}: {_line(error)}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
