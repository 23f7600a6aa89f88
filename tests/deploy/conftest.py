"""The rendered manifests, once a run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TREES = ("base", "overlays/gpu")

Manifest = dict[str, Any]


@pytest.fixture(scope="session", params=TREES)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    """What `kubectl kustomize` makes of one tree."""
    # A kubectl installed with the development requirements is not on the path of an environment that is not activated.
    path = os.pathsep.join([os.environ["PATH"], str(Path(sys.executable).parent)])
    if kubectl := shutil.which("kubectl", path=path):
        command = [kubectl, "kustomize"]
    elif kustomize := shutil.which("kustomize", path=path):
        command = [kustomize, "build"]
    else:
        pytest.skip("neither kubectl nor kustomize is installed: the manifests cannot be rendered")
    rendered = subprocess.run([*command, f"deploy/{request.param}"], cwd=ROOT, capture_output=True, text=True)
    assert rendered.returncode == 0, rendered.stderr
    return list(yaml.safe_load_all(rendered.stdout))
