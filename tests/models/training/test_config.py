"""Settings from files and flags."""

from __future__ import annotations

from pathlib import Path

import pytest

import sitsearch.models.training.glyphs
from sitsearch.models.sit import PATCH_SIZES, SIZES, SiTConfig
from sitsearch.models.training.__main__ import parser
from sitsearch.models.training.config import BadConfig, ModelSection, TrainingConfig, read_config

RECIPE = Path(sitsearch.models.training.glyphs.__file__).parent / "recipe.toml"


def test_flags_change_the_file_and_take_toml_or_bare_words(tmp_path: Path) -> None:
    config = read_config(
        RECIPE,
        {
            "train.steps": "9000",
            "optimizer.betas": "[0.9, 0.95]",
            "data.path": "some/where.npz",
            "train.compile": "false",
        },
    )
    assert config.train.steps == 9000 and config.optimizer.betas == (0.9, 0.95)
    assert config.data.path == Path("some/where.npz") and config.train.compile is False


def test_no_file_is_needed() -> None:
    config = read_config(None, {"model.preset": "S/2", "data.path": "photos"})
    assert config.data.kind == "folder" and config.optimizer.kind == "adamw" and config.align is None


def test_every_setting_has_a_flag() -> None:
    flags = {action.dest for action in parser()._actions}
    config = read_config(RECIPE, {})
    assert all(f"{name}.{field}" in flags for name, section in config for field in type(section).model_fields)


@pytest.mark.parametrize("preset", [f"{size}/{patch}" for size in SIZES for patch in PATCH_SIZES])
def test_every_preset_of_the_paper_can_be_trained(preset: str) -> None:
    expected = SiTConfig.preset(preset, input_size=32, in_channels=4, num_classes=10, learn_sigma=False)
    assert ModelSection(preset=preset).network((4, 32, 32), 10) == expected


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        ({"train.stesp": "3"}, "stesp"),
        ({"model.depth": "3"}, "either preset"),
        ({"flow.weighting": "likelihood"}, "no weighting"),
        ({"flow.prediction": "noise", "flow.contrast": "0.1"}, "contrastive"),
        ({"train.steps": "5", "optimizer.warmup": "6"}, "longer than the run"),
        ({"flow.interpolant": "VE"}, "Linear"),
        ({"train.batch": "0"}, "greater than or equal to 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(overrides: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_config(None, {"model.preset": "S/2", "data.path": "photos"} | overrides)


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(BadConfig, match="not a multiple of patch_size"):
        ModelSection(preset="S/8").network((3, 12, 12), 10)
    with pytest.raises(BadConfig, match="square"):
        ModelSection(preset="S/8").network((3, 16, 32), 10)


def test_settings_cannot_be_changed() -> None:
    config: TrainingConfig = read_config(RECIPE, {})
    with pytest.raises(ValueError, match="frozen"):
        config.train.steps = 3  # type: ignore[misc]
