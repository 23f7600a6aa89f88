"""README and documents stay true where a machine can tell."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from sitsearch.workers.settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_settings_table_has_every_setting() -> None:
    rows = re.findall(r"^\| `SITSEARCH_(\w+)` \| `[^`]*` \| (.+) \|$", README, re.MULTILINE)
    assert rows == [(name.upper(), field.description) for name, field in Settings.model_fields.items()]


TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
PAGES = [name for name in TRACKED if name.endswith(".md") and name != "CHANGELOG.md"]
#: Files in whose text modules and paths are named.
TEXTS = [
    name
    for name in TRACKED
    if name.endswith((".md", ".py", ".toml", ".yaml", "Makefile", "Containerfile")) and (ROOT / name).is_file()
]
FOLDERS = "models|workers|service|tests|bench|deploy|loadtest|requirements"


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_links_to_is_there(page: str) -> None:
    path = ROOT / page
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text())
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_every_path_that_is_named_is_there() -> None:
    """What is written in code quotes: `workers/engine/`, `models/cards/*.toml`."""
    missing = []
    for name in TEXTS:
        for path in re.findall(rf"`(?:\.\./)*((?:{FOLDERS})/[\w./*-]*)`", (ROOT / name).read_text()):
            if not path.startswith("loadtest/out/") and not any(ROOT.glob(path.rstrip("/"))):  # made by `make loadtest`
                missing.append((name, path))
    assert missing == []


def test_every_module_that_is_named_is_there() -> None:
    """`sitsearch.workers.search.base.Search` is a module with that name in it, and nothing goes by the bare folders."""
    wrong = []
    for name in TEXTS:
        text = (ROOT / name).read_text()
        wrong += [
            (name, dotted)
            for dotted in re.findall(r"\bsitsearch(?:\.(?!__)\w+)+", text)
            if not _is_there(dotted.split("."))
        ]
        bare = r"^\s*(?:from|import) (?:models|workers|service)\b|-m (?:models|workers|service)\b"
        if name != "tests/test_package.py":  # which has a folder with modules of these names
            wrong += [(name, found) for found in re.findall(bare, text, re.MULTILINE)]
    assert wrong == []


#: What is dotted too and names no modules: entry point groups, and a folder that setuptools makes.
_NO_MODULES = {"sitsearch.verifiers", "sitsearch.algorithms", "sitsearch.egg"}


def _is_there(parts: list[str]) -> bool:
    folder = ROOT
    for place, part in enumerate(parts):
        if (folder / part).is_dir():
            folder = folder / part
            continue
        file, names = folder / f"{part}.py", parts[place + 1 :]
        if not file.is_file():
            file, names = folder / "__init__.py", parts[place:]
        text = file.read_text() if file.is_file() else ""
        return ".".join(parts) in _NO_MODULES or all(re.search(rf"\b{name}\b", text) for name in names[:1])
    return True
