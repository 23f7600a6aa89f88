"""`python -m tests.golden [DIR]`: the worst error of each family; exit status 1 when one is above its bound."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.golden.check import DATA, GoldenError, check


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=DATA, help="a folder of golden arrays")
    folder = parser.parse_args(argv).folder
    try:
        families = check(folder)
    except GoldenError as error:
        print(f"cannot check {folder}: {error}", file=sys.stderr)
        return 2
    for family in families:
        verdict = "ok  " if family.ok else "FAIL"
        print(
            f"{verdict} {family.name:<24} {family.count:>4} arrays  worst {family.worst:.2e}  bound {family.bound:.0e}"
        )
        if not family.ok:
            print("".join(f"       {key}: {error:.2e}\n" for key, error in family.failures), end="")
    return 0 if all(family.ok for family in families) else 1


if __name__ == "__main__":
    sys.exit(main())
