"""The log: one JSON object a line, a record of every search and a note of every start.

Several processes append to one log at once: a line is one `write` to a descriptor that appends.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: The key of a line that notes a start: device, precision, versions, command.
SETUP = "setup"
#: What tells a search from all others.
KEY = ("task", "contender", "budget", "condition", "seed")

Record = Mapping[str, Any]


@dataclass
class Log:
    """What a log holds.

    Attributes:
        records: of searches, the first of each.
        setups: of the starts.
    """

    records: list[Record] = field(default_factory=list)
    setups: list[Record] = field(default_factory=list)


def key_of(record: Record) -> tuple[Any, ...]:
    """What tells the record's search from all others."""
    return tuple(record[name] for name in KEY)


def append(path: Path, line: Record) -> None:
    """Append one line.

    Raises:
        OSError: it could not be written, or not whole.
    """
    data = (json.dumps(line) + "\n").encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        if (written := os.write(descriptor, data)) != len(data):
            raise OSError(f"{path}: {written} bytes written of a line of {len(data)}")
    finally:
        os.close(descriptor)


def read(path: Path) -> Log:
    """The log at `path`; empty if there is none. A line that cannot be read is left out, and said on stderr."""
    log, known = Log(), set()
    for number, text in enumerate(path.read_text().splitlines() if path.exists() else (), 1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            print(f"line {number} of {path} cannot be read and is left out", file=sys.stderr)
            continue
        if SETUP in line:
            log.setups.append(line[SETUP])
        elif (key := key_of(line)) not in known:
            known.add(key)
            log.records.append(line)
    return log
