"""Kinds of verifier: their options, and those that installed packages bring."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import torch

from sitsearch.models.catalog import load_verifier
from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.errors import BadOptions, PluginError, UnknownKind
from sitsearch.models.verifiers.registry import (
    VERIFIER_KINDS,
    build_verifier,
    options_model,
    options_schema,
    stands_alone,
    title_of,
)

EXAMPLE = Path(__file__).parents[3] / "docs" / "plugins" / "example_verifier"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example package installed in it, as pip does it."""
    folder = tmp_path_factory.mktemp("plugins")
    source = shutil.copytree(EXAMPLE, folder / "source")  # setuptools builds where the source is
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    target = ["--no-deps", "--no-build-isolation", "--target", str(folder / "site"), str(source)]
    subprocess.run([*pip, *target], check=True, timeout=120)
    return folder / "site"


@pytest.fixture
def with_example(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(installed))
    importlib.invalidate_caches()
    yield
    sys.modules.pop("sitsearch_ink_coverage", None)


def entry_point(folder: Path, package: str, line: str) -> None:
    """What an installed package with one entry point leaves on disk."""
    metadata = folder / f"{package}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[sitsearch.verifiers]\n{line}\n")


def test_an_installed_package_brings_its_verifier(with_example: None) -> None:
    assert VERIFIER_KINDS.plugins() == ("ink_coverage",) and "ink_coverage" in list(VERIFIER_KINDS)
    assert title_of("ink_coverage").startswith("Minus the distance") and stands_alone("ink_coverage")
    schema = options_schema("ink_coverage")
    assert set(schema["properties"]) == {"share", "threshold"} and schema["properties"]["share"]["default"] == 0.25
    half_dark = torch.cat([torch.zeros(1, 3, 4, 8), torch.ones(1, 3, 4, 8)], dim=2)
    for share, expected in ((0.25, -0.25), (0.5, 0.0)):
        verifier = build_verifier("ink_coverage", options={"share": share})
        assert verifier.score(half_dark, [Condition()]).tolist() == [expected]
    with pytest.raises(BadOptions, match="share: Input should be less than or equal to 1"):
        build_verifier("ink_coverage", options={"share": 2})


def test_the_readmes_card_sets_the_examples_options(
    with_example: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = (EXAMPLE / "README.md").read_text().split("```toml")[2].split("```")[0]
    (tmp_path / "heavy_ink.toml").write_text(card)
    monkeypatch.setenv("SITSEARCH_CARDS_DIR", str(tmp_path))
    black = torch.zeros(1, 3, 4, 4)
    assert load_verifier("heavy_ink").score(black, [Condition()]).tolist() == pytest.approx([-0.6])


def test_without_the_package_there_is_no_such_kind() -> None:
    assert VERIFIER_KINDS.plugins() == () and "ink_coverage" not in VERIFIER_KINDS
    with pytest.raises(UnknownKind, match=r"'ink_coverage'; there are aesthetic, .*vlm_judge"):
        build_verifier("ink_coverage")


def test_a_name_that_is_taken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry_point(tmp_path, "usurper", "clip_score = usurper:ClipScore")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        PluginError, match=r"'usurper:ClipScore'.*'clip_score'.*'sitsearch\.models\.verifiers\.clip:ClipScore'"
    ):
        list(VERIFIER_KINDS)


def test_two_plugins_cannot_share_a_name(with_example: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry_point(tmp_path, "usurper", "ink_coverage = usurper:Other")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PluginError, match="'ink_coverage'"):
        list(VERIFIER_KINDS)


def test_a_plugin_that_cannot_be_imported_says_so_when_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry_point(tmp_path, "broken", "broken = no_such_module:Broken")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "broken" in VERIFIER_KINDS
    with pytest.raises(PluginError, match=r"'broken' \(no_such_module:Broken\) cannot be imported"):
        build_verifier("broken")


@pytest.mark.parametrize("kind", VERIFIER_KINDS)
def test_every_kind_says_its_options_as_a_json_schema(kind: str) -> None:
    schema = options_schema(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["type"] == "object" and schema["additionalProperties"] is False
    assert not {"weights", "device"} & set(schema.get("properties", {}))
    assert 10 < len(title_of(kind)) <= 120 and "\n" not in title_of(kind)


def test_defaults_of_the_schema_are_those_of_the_class() -> None:
    defaults = options_model("clip_score")()
    assert defaults.model_dump() == {
        "architecture": None,
        "sha256": None,
        "weight": 2.5,
        "prefix": "",
        "clamped": True,
    }


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        ("glyph_classifier", {"mode": "best"}, "mode: Input should be 'log_probability'"),
        ("clip_score", {"colour": 1}, "colour: Extra inputs are not permitted"),
        ("remote", {}, "url: Field required"),
        ("similarity", {"network": {"kind": "dinov2"}}, "'dinov2' needs weights"),
        ("likelihood", {"generator": "glyphs"}, "none can be loaded here"),
        ("dinov2", {}, "'dinov2' needs weights"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(kind: str, options: dict[str, object], reason: str) -> None:
    with pytest.raises(BadOptions, match=reason):
        build_verifier(kind, options=options)
