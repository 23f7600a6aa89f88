"""Guidance moves what it is told to move, when it is told to."""

from __future__ import annotations

import pytest
import torch

from sitsearch.models.guidance import Guidance, combine


def test_scale_one_gives_the_conditional_prediction() -> None:
    conditional, unconditional = torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2)
    torch.testing.assert_close(combine(conditional, unconditional, 1.0), conditional)


def test_first3_leaves_the_other_channels_conditional_and_its_inputs_alone() -> None:
    conditional, unconditional = torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2)
    before = conditional.clone(), unconditional.clone()
    guided = combine(conditional, unconditional, 4.0, channels="first3")
    torch.testing.assert_close(guided[:, :3], combine(conditional, unconditional, 4.0)[:, :3])
    assert torch.equal(guided[:, 3:], conditional[:, 3:])
    assert torch.equal(conditional, before[0]) and torch.equal(unconditional, before[1])


def test_the_second_row_is_counted_only_inside_the_interval() -> None:
    guidance = Guidance(scale=2.0, interval=(0.25, 0.5))
    assert [guidance.rows(t) for t in (0.0, 0.25, 0.4, 0.5, 0.75)] == [1, 2, 2, 2, 1]


def test_scale_one_never_needs_a_second_row() -> None:
    assert Guidance(scale=1.0).rows(0.5) == 1


@pytest.mark.parametrize("wrong", [{"scale": -1.0}, {"interval": (0.5, 0.2)}, {"interval": (-0.1, 1.0)}])
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Guidance(**wrong)  # type: ignore[arg-type]


def test_unknown_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="channels"):
        combine(torch.zeros(1, 4, 1, 1), torch.zeros(1, 4, 1, 1), 2.0, channels="four")  # type: ignore[arg-type]
