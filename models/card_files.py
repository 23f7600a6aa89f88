"""The cards as files: where they lie, what they say in TOML, and where the weights they name are kept.

Nothing here imports torch, so that the command line can fetch weights without it.

A card lies in `models/cards/` or in a folder of `SITSEARCH_CARDS_DIR` (several are separated as in PATH), which goes
first: a card there replaces the bundled one of its name. Weights named by a card are relative to

- `weights_dir() / NAME` if the card says with `[[files]]` where they come from (`sitsearch models pull NAME`), else
- `models/` for a bundled card, and the card's own folder for another.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self
from urllib.parse import quote, unquote

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from sitsearch.models.checksums import SUMS, check_sha256, read_sums, sha256_of
from sitsearch.models.errors import BadCard, BadWeights, UnknownCard

ROOT = Path(__file__).parent
CARDS = ROOT / "cards"

#: The hub, unless `HF_ENDPOINT` names another.
HUB = "https://huggingface.co"

#: What follows the hub in the address of a model's file; those of data sets and spaces are fetched as any address.
_RESOLVE = (
    r"/(?P<repo>(?!datasets/|spaces/)[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/?#]+)/(?P<file>[^?#]+)(\?download=true)?"
)


@dataclass(frozen=True)
class HubFile:
    """A file of a repository on a hub.

    Attributes:
        repo: `OWNER/NAME`.
        file: its path in the repository.
        revision: a commit, a tag or a branch.
    """

    repo: str
    file: str
    revision: str

    @property
    def address(self) -> str:
        return f"{hub_endpoint()}/{self.repo}/resolve/{quote(self.revision, safe='')}/{quote(self.file)}"


class RemoteFile(BaseModel):
    """One file of a card's weights and where it is published: at a `url`, or in the `repo` of a hub."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(description="where it lies in the model's folder, relative, with `/`")
    url: Annotated[str, Field(pattern=r"^https?://\S+$")] = ""
    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] = Field("", description="on the hub: OWNER/NAME")
    file: str = Field("", description="path in `repo`; empty: as `path`")
    revision: str = Field("", description="commit, tag or branch of `repo`; empty: main")
    size: PositiveInt | None = Field(None, description="bytes, where known")
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = Field("", description="empty: not pinned")

    @field_validator("path")
    @classmethod
    def _inside(cls, value: str) -> str:
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ValueError("must lie inside the model's folder")
        return value

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if bool(self.url) == bool(self.repo):
            raise ValueError("give either url or repo")
        if self.url and (self.file or self.revision):
            raise ValueError("file and revision go with repo, not with url")
        return self

    @property
    def hub(self) -> HubFile | None:
        """Where it is on the hub, if it is there; a `url` that is the hub's address of a file counts as well."""
        if self.repo:
            return HubFile(self.repo, self.file or self.path, self.revision or "main")
        for endpoint in (HUB, hub_endpoint()):
            if found := re.fullmatch(re.escape(endpoint) + _RESOLVE, self.url):
                return HubFile(found["repo"], unquote(found["file"]), unquote(found["revision"]))
        return None

    @property
    def address(self) -> str:
        """The URL that it is fetched from."""
        return self.hub.address if self.hub else self.url


_FILES = TypeAdapter(tuple[RemoteFile, ...])
#: What a card says that changes no result.
_FOR_PEOPLE = ("name", "title", "license", "models")


@dataclass(frozen=True)
class CardFile:
    """A card as it was read.

    Attributes:
        name: of the card.
        path: the TOML file.
        table: what it says, without `files`.
        files: what can be fetched.
        base: folder that its weights are relative to.
    """

    name: str
    path: Path
    table: Mapping[str, Any]
    files: tuple[RemoteFile, ...]
    base: Path

    def locate(self, weights: str) -> Path:
        """Where the weights `weights` of the card are.

        Raises:
            BadWeights: they are not there; the message says how to get them.
        """
        path = self.base / Path(weights).expanduser()
        missing = [path] if not path.exists() else []
        missing += [self.base / file.path for file in self.files if not (self.base / file.path).exists()]
        if missing and self.files:
            raise BadWeights(
                f"cannot read the weights of {self.name!r}: {missing[0]} is missing; run `sitsearch models pull "
                f"{self.name}` (SITSEARCH_WEIGHTS_DIR says where they are kept)"
            )
        if missing:
            raise BadWeights(f"cannot read the weights of {self.name!r}: {path} is missing")
        return path

    def checksums(self) -> dict[Path, str]:
        """File to SHA-256: the card's own, or, where it pins none, what the download noted."""
        noted = read_sums(self.base) if self.files else {}
        known = {file.path: file.sha256 or noted.get(file.path, "") for file in self.files}
        return {self.base / path: digest for path, digest in known.items() if digest}

    def digest(self) -> str:
        """SHA-256 of what the card says and of every file that it names, 64 hexadecimal digits.

        Two deployments whose cards have the same digest sample, or score, with the same weights in the same way.

        Raises:
            OSError: a file cannot be read.
        """
        said = {key: value for key, value in self.table.items() if key not in _FOR_PEOPLE}
        known = self.checksums()
        lines = [json.dumps(said, sort_keys=True)]
        for path in sorted({path for text in _texts(said) for path in _files(self.base / text)}):
            name = path.relative_to(self.base) if path.is_relative_to(self.base) else Path(path.name)
            lines.append(f"{known.get(path) or sha256_of(path)}  {name.as_posix()}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def verify(self) -> None:
        """Check every file whose SHA-256 is known.

        Raises:
            ChecksumMismatch: one is not the file that was published, or fetched.
            BadWeights: one cannot be read.
        """
        for path, digest in self.checksums().items():
            try:
                check_sha256(path, digest)
            except OSError as error:
                raise BadWeights(f"cannot read the weights {path}: {error}") from error


def weights_dir() -> Path:
    """Where fetched weights are kept, a folder a model: `SITSEARCH_WEIGHTS_DIR`, or `sitsearch` in the user's cache."""
    if given := os.environ.get("SITSEARCH_WEIGHTS_DIR"):
        return Path(given).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "sitsearch"


def hub_endpoint() -> str:
    """Address of the hub, without a `/` at its end: `HF_ENDPOINT`, as huggingface_hub reads it, or huggingface.co."""
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")


def known_cards() -> dict[str, Path]:
    """Name to file of every card, sorted by name."""
    given = os.environ.get("SITSEARCH_CARDS_DIR", "")
    folders = [CARDS, *(Path(folder).expanduser() for folder in reversed(given.split(os.pathsep)) if folder)]
    # of two with one name, the later folder's stays
    found = {path.stem: path for folder in folders for path in folder.glob("*.toml")}
    return dict(sorted(found.items()))


def read_card(name: str, *, weights: Path | None = None) -> CardFile:
    """The card `name`.

    Args:
        name: of the card.
        weights: stands in for `weights_dir()`.

    Raises:
        UnknownCard: there is none.
        BadCard: it is not TOML, has another name than its file, or its `[[files]]` are not as `RemoteFile` says.
    """
    cards = known_cards()
    if name not in cards:
        raise UnknownCard(f"no card named {name!r}; there are {', '.join(cards)}")
    path = cards[name]
    try:
        table = tomllib.loads(path.read_text())
        files = _FILES.validate_python(table.pop("files", ()))
    except tomllib.TOMLDecodeError as error:
        raise BadCard(f"the card {path} is not TOML: {error}") from error
    except ValidationError as error:
        raise BadCard(f"the card {path}: {reasons(error, 'files')}") from error
    if table.get("name") != name:
        raise BadCard(f"the card {path} has the name {table.get('name')!r}, and its file {name!r}")
    bundled = ROOT if path.parent == CARDS else path.parent
    base = (weights or weights_dir()) / name if files else bundled
    return CardFile(name, path, table, files, base)


def _texts(value: Any) -> Iterator[str]:
    """All texts in a table."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def _files(path: Path) -> Iterator[Path]:
    """The file, or those of the folder; none where there is nothing."""
    try:
        inside = path.is_dir()
        found = path.rglob("*") if inside else [path]
        yield from (one for one in found if one.is_file() and one.name != SUMS)
    except OSError:  # a text too long for a name
        return


def reasons(error: ValidationError, *prefix: str) -> str:
    """What pydantic found wrong, in one line: `field: reason; field: reason`."""
    return "; ".join(f"{'.'.join(map(str, (*prefix, *e['loc'])))}: {e['msg']}" for e in error.errors())
