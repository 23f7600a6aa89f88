"""Noise is a function of its words alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sitsearch.models.noise import Purpose, draw, gaussian, step_noise

COUNT = st.integers(0, 2**64 - 1)
WORDS = st.tuples(COUNT, COUNT, COUNT, COUNT)
PINNED = [0.5965586304664612, -1.7871711254119873, 0.18697799742221832, -0.5950523614883423]


def test_the_same_words_give_the_same_noise() -> None:
    assert torch.equal(gaussian(7, 3, 5, (3, 8, 8)), gaussian(7, 3, 5, (3, 8, 8)))


def test_the_numbers_are_pinned_so_that_old_recipes_keep_their_meaning() -> None:
    torch.testing.assert_close(gaussian(7, 3, 5, (4,)), torch.tensor(PINNED), rtol=0, atol=0)


@settings(max_examples=50, deadline=None)
@given(WORDS, WORDS)
def test_different_words_give_unrelated_noise(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> None:
    x, y = draw(Purpose.START, *a, (256,)), draw(Purpose.START, *b, (256,))
    assert torch.equal(x, y) == (a == b)
    if a != b:
        assert abs(torch.corrcoef(torch.stack([x, y]))[0, 1].item()) < 0.4  # 6 standard deviations


@pytest.mark.parametrize("other", [(1, 2, 2**32), (1, 2 + 2**32, 3), (1 + 2**32, 2, 3), (2, 1, 3), (1, 3, 2)])
def test_neighbouring_and_wrapped_words_do_not_collide(other: tuple[int, int, int]) -> None:
    assert not torch.equal(gaussian(1, 2, 3, (16,)), gaussian(*other, (16,)))


def test_step_noise_never_equals_start_noise() -> None:
    start = gaussian(1, 2, 3, (16,))
    steps = [step_noise(1, 2, 3, step, (16,)) for step in range(4)]
    assert len({tuple(x.tolist()) for x in [start, *steps]}) == 5


def test_a_later_draw_shares_no_number_with_the_one_before() -> None:
    assert not set(gaussian(1, 0, 0, (4096,)).tolist()[2048:]) & set(gaussian(1, 0, 1, (4096,)).tolist()[:64]) - {0.0}


def test_it_is_standard_normal_float32_on_the_cpu() -> None:
    x = gaussian(11, 0, 0, (3, 128, 128))
    assert x.dtype == torch.float32 and x.device.type == "cpu" and x.shape == (3, 128, 128)
    assert abs(x.mean().item()) < 0.03 and abs(x.std().item() - 1) < 0.03


@pytest.mark.parametrize("words", [(-1, 0, 0), (0, -1, 0), (0, 0, 2**64)])
def test_words_out_of_range_are_refused(words: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be in"):
        gaussian(*words, (4,))
