"""Random numbers of training are functions of seed, step and row."""

from __future__ import annotations

import dataclasses

import torch

from sitsearch.models.training.draws import Plan, logit_normal_times, uniform_times

PLAN = Plan(
    seed=3,
    batch=8,
    samples=20,
    order="shuffled",
    uniforms=2,
    shape=(2, 3, 3),
    class_dropout=0.25,
    times=uniform_times(0.1, 0.9),
)


def test_shares_of_a_batch_are_the_batch() -> None:
    whole, left, right = PLAN(5, range(8)), PLAN(5, range(4)), PLAN(5, range(4, 8))
    for field in dataclasses.fields(whole):
        halves = torch.cat([getattr(left, field.name), getattr(right, field.name)])
        assert torch.equal(getattr(whole, field.name), halves)
        assert torch.equal(getattr(whole[4:], field.name), getattr(right, field.name))


def test_steps_rows_and_seeds_differ() -> None:
    noise = PLAN(5, range(8)).noise
    assert len({float(row[0, 0, 0]) for row in noise}) == 8
    assert not torch.equal(noise, PLAN(6, range(8)).noise)
    assert not torch.equal(noise, dataclasses.replace(PLAN, seed=4)(5, range(8)).noise)


def test_shuffled_order_takes_every_sample_once_an_epoch_and_anew_the_next() -> None:
    drawn = torch.cat([PLAN(step, range(8)).index for step in range(5)]).tolist()
    assert sorted(drawn[:20]) == sorted(drawn[20:]) == list(range(20))
    assert drawn[:20] != drawn[20:]


def test_with_replacement_every_sample_can_be_drawn() -> None:
    plan = dataclasses.replace(PLAN, order="replacement")
    drawn = torch.cat([plan(step, range(8)).index for step in range(60)])
    assert drawn.unique().tolist() == list(range(20))


def test_distributions() -> None:
    plan = dataclasses.replace(PLAN, batch=4000)
    rows = plan(0, range(4000))
    assert abs(float(rows.dropped.float().mean()) - 0.25) < 0.03
    assert float(rows.t.min()) >= 0.1 and float(rows.t.max()) <= 0.9 and abs(float(rows.t.mean()) - 0.5) < 0.02
    assert abs(float(rows.noise.mean())) < 0.02 and abs(float(rows.noise.std()) - 1) < 0.02
    assert abs(float(rows.uniforms.mean()) - 0.5) < 0.02 and rows.uniforms.shape == (4000, 2)


def test_logit_normal_times_have_their_median_and_a_share_of_uniform_ones() -> None:
    z = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    u, choice = torch.rand(2, 20_000, generator=torch.Generator().manual_seed(1))
    t = logit_normal_times(0, 1, -0.2, 0.1, 0.0)(u, choice, z)
    assert abs(float(t.median()) - float(torch.sigmoid(torch.tensor(-0.2)))) < 0.005
    mixed = logit_normal_times(0, 1, -0.2, 0.1, 0.3)(u, choice, z)
    assert abs(float((mixed > 0.7).float().mean()) - 0.3 * 0.3) < 0.01
