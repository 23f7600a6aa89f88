"""Addresses of sentinels, which know where the primary is: `redis+sentinel://[USER:PASSWORD@]HOST[:PORT],.../NAME[/DB]`."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

SCHEME = "redis+sentinel://"
PORT = 26_379


@dataclass(frozen=True)
class Sentinels:
    """What such an address says.

    Attributes:
        hosts: of the sentinels, with ports.
        name: of the primary that they watch.
        db: its database.
        login: `username` and `password`, as far as they are given, of sentinels and primary alike.
    """

    hosts: tuple[tuple[str, int], ...]
    name: str
    db: int
    login: dict[str, str]


def sentinels_of(url: str) -> Sentinels | None:
    """What an address says of sentinels; None if it is of another kind.

    Raises:
        ValueError: it names no sentinel or no primary, or a port or database that is no number.
    """
    if not url.startswith(SCHEME):
        return None
    place, _, path = url.removeprefix(SCHEME).partition("/")
    account, _, hosts = place.rpartition("@")
    name, _, db = path.partition("/")
    user, _, password = account.partition(":")
    found = []
    for host in filter(None, hosts.split(",")):
        address, colon, port = host.rpartition(":")
        found.append((address, int(port)) if colon else (host, PORT))
    if not found or not name:
        raise ValueError(f"{SCHEME}HOST[:PORT],.../NAME[/DB] is needed, with a sentinel and the primary's name")
    login = {"username": unquote(user), "password": unquote(password)}
    return Sentinels(tuple(found), unquote(name), int(db or 0), {key: value for key, value in login.items() if value})
