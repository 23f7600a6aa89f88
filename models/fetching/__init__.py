"""How the bytes of a published file come: from a hub by `hub.py`, from any other address by `plain.py`.

Nothing here imports torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from sitsearch.models.card_files import RemoteFile
from sitsearch.models.errors import DownloadFailed

#: Told of each piece: the file, the bytes at hand, and how many it will be (None: the server does not say).
Progress = Callable[[RemoteFile, int, int | None], None]


def check_offer(file: RemoteFile, folder: Path, total: int | None, have: int = 0) -> None:
    """Refuse a file before it is fetched.

    Args:
        file: what the card says of it.
        folder: where it will be written.
        total: bytes of the file; None: the server does not say.
        have: bytes of it that are in the folder already.

    Raises:
        DownloadFailed: the card names another size, or the disk has no room for the rest.
    """
    if total is None:
        return
    if file.size is not None and total != file.size:
        raise DownloadFailed(f"{file.address} offers {total} bytes; the card says {file.size}")
    free = shutil.disk_usage(folder).free
    if total - have > free:
        raise DownloadFailed(f"{folder} has {free} bytes free; {total - have} are needed for {file.path}")
