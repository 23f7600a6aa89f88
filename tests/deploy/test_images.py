import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.conftest import ROOT

IMAGES = ("gateway", "workers")


def instructions(image: str) -> list[list[str]]:
    """The words of each instruction of a container file."""
    lines = (ROOT / f"deploy/images/{image}.Containerfile").read_text(encoding="utf-8").splitlines()
    return [line.split() for line in lines if line and not line.startswith("#")]


def copied(image: str) -> set[str]:
    return {source for words in instructions(image) if words[0] == "COPY" for source in words[1:-1]}


@pytest.mark.parametrize("image", IMAGES)
def test_what_is_copied_is_there_and_let_through_by_the_ignore_file(image: str) -> None:
    ignore = (ROOT / f"deploy/images/{image}.Containerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignore
    assert {line.removeprefix("!") for line in ignore if line.startswith("!")} == copied(image)
    assert all(Path(ROOT, source).exists() for source in copied(image))


def test_the_gateway_has_no_weights_and_the_workers_no_gateway() -> None:
    assert not any(source.startswith("models") for source in copied("gateway"))
    assert not any(source.startswith("service") for source in copied("workers"))


@pytest.mark.parametrize(
    ("image", "module"), [("gateway", "sitsearch.service.gateway.app"), ("workers", "sitsearch.workers.serving.app")]
)
def test_what_an_image_copies_is_all_that_it_imports(image: str, module: str, tmp_path: Path) -> None:
    for words in instructions(image):
        if words[0] == "COPY" and words[1].startswith(("sitsearch", "models", "workers", "service")):
            target = tmp_path / words[2]
            target.mkdir(parents=True, exist_ok=True) if words[2].endswith("/") else None
            source = ROOT / words[1]
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    code = f"import sitsearch, {module}; print(sitsearch.__file__)"
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == str(tmp_path / "sitsearch/__init__.py")


@pytest.mark.parametrize("image", IMAGES)
def test_images_run_python_3_11_as_the_user_that_the_manifests_name(image: str) -> None:
    words = instructions(image)
    assert words[0][0] == "ARG" and words[0][1].startswith("PYTHON=3.11.")
    assert ["USER", "10001:10001"] in words


@pytest.mark.parametrize("image", IMAGES)
def test_requirements_are_installed_with_their_hashes(image: str) -> None:
    (install,) = (words for words in instructions(image) if words[:3] == ["RUN", "pip", "install"])
    assert "--require-hashes" in install and f"/tmp/{image}.lock" in install
