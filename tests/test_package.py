"""What is published: the wheel and the sdist hold `sitsearch/` alone, and it gets along with anyone's folder."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import sitsearch

ROOT = Path(__file__).parent.parent
BUILD = "import setuptools.build_meta as build; print(build.build_{kind}({target!r}))"

#: What a research repository has lying around.
FOREIGN = {
    "models.py": "MINE = 'a network'\n",
    "service.py": "MINE = 'a service'\n",
    "workers/__init__.py": "MINE = 'some workers'\n",
}
SCRIPT = """
import models, service, workers
assert (models.MINE, service.MINE, workers.MINE) == ("a network", "a service", "some workers")

from sitsearch import Client, Condition, load_generator, load_verifier, search

found = search(
    load_generator("glyphs"), load_verifier("classifier"), "zero_order", 24,
    condition=Condition(class_index=16), sampler={"method": "euler", "steps": 4}, seed=7,
)
assert found.usage.nfe_search == 24 and found.images.shape == (1, 32, 32, 3), found

from sitsearch.workers.jobs.store.scripts import LUA, text_of

assert len([text_of(path.stem) for path in LUA.glob("*.lua")]) >= 10
import sitsearch
print(sitsearch.__file__)
"""


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    """What a command prints; its environment has no path to this checkout."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=clean | env, capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Wheel and sdist, built from the tracked files."""
    folder = tmp_path_factory.mktemp("package")
    source, target = folder / "source", folder / "dist"
    target.mkdir()
    for name in run("git", "ls-files", "-z", cwd=ROOT).split("\0"):
        if name and (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name, follow_symlinks=False)
    for kind in ("sdist", "wheel"):
        run(sys.executable, "-c", BUILD.format(kind=kind, target=str(target)), cwd=source)
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    return wheel, sdist


def contents(wheel: Path) -> set[str]:
    """The wheel's files, its metadata left out."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_sitsearch_alone_with_all_that_its_commands_need(built: tuple[Path, Path]) -> None:
    names = contents(built[0])
    assert {name.split("/")[0] for name in names} == {"sitsearch"}
    tracked = run("git", "ls-files", "models", "workers", "service", cwd=ROOT).split()
    data = {f"sitsearch/{name}" for name in tracked if (ROOT / name).exists()} | {"sitsearch/py.typed"}
    assert data - names == set(), "every tracked file of the three folders is in it"


def test_the_sdist_holds_the_same_and_makes_the_same_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    wheel, sdist = built
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    folders = {path.name for path in source.iterdir() if path.is_dir()}
    assert folders == {"sitsearch", "sitsearch.egg-info"}
    run(sys.executable, "-c", BUILD.format(kind="wheel", target=str(tmp_path)), cwd=source)
    assert contents(tmp_path / wheel.name) == contents(wheel)


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a fresh environment with the wheel in it; what the wheel depends on is borrowed from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    pip = [folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    run(*pip, built[0], cwd=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")  # its own .pth files stay unread
    return folder / "bin"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder with modules of the names that ours once had."""
    for name, text in FOREIGN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_in_a_folder_with_models_of_its_own_both_are_found(installed: Path, foreign: Path) -> None:
    (foreign / "script.py").write_text(SCRIPT)
    where = run(installed / "python", "script.py", cwd=foreign).strip().splitlines()[-1]
    assert Path(where).is_relative_to(installed.parent)


def test_so_do_the_commands(installed: Path, foreign: Path) -> None:
    words = ["search", "--local", "--class", "Q", "--nfe", "16", "--method", "euler", "--steps", "4", "--out", "found"]
    run(installed / "sitsearch", *words, cwd=foreign)
    assert len([*foreign.glob("found/*.png")]) == 1
    assert "--host" in run(installed / "python", "-m", "sitsearch.service.cli", "serve", "--help", cwd=foreign)


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    assert set(sitsearch.__all__) == set(sitsearch._HOME) == set(dir(sitsearch))
    for name in sitsearch.__all__:
        assert getattr(sitsearch, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(sitsearch, "nothing")  # noqa: B009


def test_a_client_loads_neither_torch_nor_ray() -> None:
    code = "from sitsearch import Client, Problem; import sys; print({'torch', 'ray', 'numpy'} & {*sys.modules})"
    assert run(sys.executable, "-c", code, cwd=ROOT).strip() == "set()"


def test_type_checkers_see_every_public_name() -> None:
    tree = ast.parse(Path(sitsearch.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    homes = {
        name.name: str(node.module) for node in block.body if isinstance(node, ast.ImportFrom) for name in node.names
    }
    assert homes == {name: f"sitsearch.{home}" for name, home in sitsearch._HOME.items()}
