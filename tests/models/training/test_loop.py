"""Runs learn, go on after an interruption as if there had been none, and do not depend on how a batch is shared."""

from __future__ import annotations

import itertools
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from sitsearch.models.catalog import load_generator, model_card
from sitsearch.models.condition import Condition
from sitsearch.models.errors import BadWeights
from sitsearch.models.field import conditioned
from sitsearch.models.generator import SiTGenerator
from sitsearch.models.training.__main__ import main
from sitsearch.models.training.config import BadConfig, OptimizerSection, read_config
from sitsearch.models.training.ema import Ema
from sitsearch.models.training.loop import Trainer, share
from sitsearch.models.training.optim import make_optimizers, rate
from sitsearch.models.training.trainee import Trainee
from tests.models.training.conftest import distance, state


def trainer(run: Path, settings: dict[str, str], **changes: str) -> Trainer:
    """A run with some `section__field` settings changed."""
    overrides = settings | {key.replace("__", "."): value for key, value in changes.items()}
    return Trainer(read_config(None, overrides), run, accelerator=Accelerator(cpu=True))


def losses(made: Trainer, steps: int) -> list[float]:
    """The flow's loss in each of the next steps."""
    return [float(made.take_step(*batch)[0]) for batch in made.batches(made.step, made.step + steps)]


# --- what is learnt ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["Linear", "GVP", "VP"])
@pytest.mark.parametrize(
    ("kind", "weighting"),
    [("velocity", "none"), *itertools.product(("score", "noise"), ("none", "velocity", "likelihood"))],
)
def test_every_loss_of_the_paper_can_be_trained(
    tmp_path: Path, tiny: dict[str, str], path: str, kind: str, weighting: str
) -> None:
    made = trainer(tmp_path, tiny, flow__interpolant=path, flow__prediction=kind, flow__weighting=weighting)
    assert all(np.isfinite(losses(made, 3)))
    assert all(bool(p.isfinite().all()) for p in made.ema.net.parameters())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("precision", ["float32", "bf16", "bf16-copy"])
def test_the_loss_falls(tmp_path: Path, tiny: dict[str, str], optimizer: str, precision: str) -> None:
    made = trainer(
        tmp_path, tiny, train__steps="60", optimizer__kind=optimizer, optimizer__lr="1e-2", train__precision=precision
    )
    seen = losses(made, 60)
    assert sum(seen[-10:]) < 0.75 * sum(seen[:10])
    assert all(p.dtype == torch.float32 for p in made.model.parameters())


def test_latents_are_trained_on_as_they_are(tmp_path: Path, tiny: dict[str, str]) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "l.npz", latents=rng.normal(size=(10, 4, 8, 8)).astype(np.float32), labels=np.arange(10) % 2)
    settings = tiny | {"data.path": str(tmp_path / "l.npz"), "data.flip": "false", "card.name": "latent"}
    trainer(tmp_path / "run", settings, train__steps="2").train()
    assert 'kind = "autoencoder_kl"' in (tmp_path / "run" / "latent.toml").read_text()


# --- interruption, sharing ---------------------------------------------------------------------------------------


def test_an_interrupted_run_ends_in_the_same_weights(tmp_path: Path, tiny: dict[str, str]) -> None:
    settings = tiny | {"optimizer.kind": "muon", "optimizer.clip": "1.0", "train.ema_warmup": "true"}
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    trainer(whole, settings).train()
    stopped = trainer(halved, settings, train__save_every="4")
    original, stopped.take_step = stopped.take_step, lambda *a: original(*a) if stopped.step < 5 else _interrupt()  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    resumed = trainer(halved, settings, data__workers="1")
    assert resumed.step == 4
    resumed.train()
    assert distance(whole, halved) == 0


def _interrupt() -> torch.Tensor:
    raise KeyboardInterrupt


def test_a_batch_in_parts_is_the_batch(tmp_path: Path, tiny: dict[str, str]) -> None:
    trainer(tmp_path / "whole", tiny).train()
    trainer(tmp_path / "parts", tiny, train__accumulate="4").train()
    assert 0 < distance(tmp_path / "whole", tmp_path / "parts") < 1e-5


@pytest.mark.timeout(300)  # two interpreters start, on a machine that may be busy
def test_two_processes_train_as_one_with_the_whole_batch(tmp_path: Path, tiny: dict[str, str]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    trainer(one, tiny).train()
    flags = [word for key, value in tiny.items() for word in (f"--{key}", value)]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, "-m", "sitsearch.models.training", "--out", str(two), "--cpu", *flags],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("samples/s") == 1  # only one of them speaks
    assert distance(one, two) < 1e-5


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    assert share(8, 2, Accelerator(cpu=True)) == range(8)
    with pytest.raises(BadConfig, match="cannot be shared"):
        share(8, 3, Accelerator(cpu=True))


# --- files -------------------------------------------------------------------------------------------------------


def test_a_run_makes_a_model_that_the_catalog_loads(
    tmp_path: Path, tiny: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer(tmp_path, tiny, card__name="shades", flow__prediction="noise", flow__interpolant="GVP").train()
    monkeypatch.setenv("SITSEARCH_CARDS_DIR", str(tmp_path))
    card, generator = model_card("shades"), load_generator("shades")
    assert card.classes == ("0", "1", "2") and (card.interpolant, card.prediction) == ("GVP", "noise")
    assert isinstance(generator, SiTGenerator) and generator.shape == (3, 8, 8)
    weights, saved = load_file(tmp_path / "ema.safetensors"), state(tmp_path)
    assert all(torch.equal(value, saved[f"ema.{name}"]) for name, value in weights.items())
    assert conditioned(generator, [Condition(1)])(torch.zeros(1, 3, 8, 8), torch.zeros(1)).shape == (1, 3, 8, 8)


def test_a_run_can_begin_with_given_weights(tmp_path: Path, tiny: dict[str, str]) -> None:
    trainer(tmp_path / "first", tiny).train()
    weights = tmp_path / "first" / "ema.safetensors"
    made = trainer(tmp_path / "second", tiny, train__init_from=str(weights))
    assert all(torch.equal(value, made.model.net.state_dict()[name]) for name, value in load_file(weights).items())
    with pytest.raises(BadWeights, match="does not fit"):
        trainer(tmp_path / "third", tiny, train__init_from=str(weights), model__depth="3")


def test_a_state_of_another_network_or_a_longer_run_is_refused(tmp_path: Path, tiny: dict[str, str]) -> None:
    trainer(tmp_path, tiny).train()
    with pytest.raises(BadWeights, match="cannot go on"):
        trainer(tmp_path, tiny, model__depth="3")
    with pytest.raises(BadConfig, match="already took 6 steps"):
        trainer(tmp_path, tiny, train__steps="5")


def test_the_command_says_what_it_does_and_what_is_wrong(
    tmp_path: Path, tiny: dict[str, str], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [word for key, value in tiny.items() for word in (f"--{key}", value)]
    with caplog.at_level(logging.INFO):
        assert main(["--out", str(tmp_path / "run"), "--cpu", *flags, "--train.log_every", "3"]) == 0
        assert main(["--out", str(tmp_path / "run"), "--cpu", *flags, "--train.steps", "7"]) == 0
    text = caplog.text
    assert "steps 0..6" in text and "step 3 loss" in text and "step 6 loss" in text and "samples/s" in text
    assert "changed since step 6: train.steps: 6 -> 7" in text
    assert main(["--out", str(tmp_path / "other"), "--cpu", *flags, "--train.precision", "int3"]) == 2
    assert "train.precision" in capsys.readouterr().err


# --- parts -------------------------------------------------------------------------------------------------------


def test_the_rate_rises_is_held_and_falls() -> None:
    config = OptimizerSection(warmup=4, decay=5)
    factors = [rate(step, config, 20) for step in range(20)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0] and set(factors[4:15]) == {1.0}
    assert factors[15:] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])


def test_muon_takes_the_matrices_of_attention_and_mlp(tiny: dict[str, str], tmp_path: Path) -> None:
    made = trainer(tmp_path, tiny, optimizer__kind="muon")
    muon, adamw = made.optimizers
    names = {id(p): name for name, p in made.model.net.named_parameters()}
    taken = {names[id(p)].split(".", 2)[2] for group in muon.param_groups for p in group["params"]}
    assert taken == {"attn.qkv.weight", "attn.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight"}
    count = sum(len(group["params"]) for optimizer in (muon, adamw) for group in optimizer.param_groups)
    assert count == sum(p.requires_grad for p in made.model.parameters())
    assert len(make_optimizers(made.model, OptimizerSection())) == 1


def test_the_average_follows_the_network(tiny: dict[str, str], tmp_path: Path) -> None:
    net = trainer(tmp_path, tiny).model.net
    plain, warm = Ema(net, 0.9), Ema(net, 0.9, warmup=True)
    weight = net.x_embedder.proj.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight += 1
    plain.update(0)
    warm.update(0)
    assert torch.allclose(plain.net.x_embedder.proj.weight, before + 0.1)
    assert torch.allclose(warm.net.x_embedder.proj.weight, before + 0.9)
    assert torch.equal(plain.net.pos_embed, net.pos_embed)


def test_the_trainee_predicts_what_its_network_does_and_projects_a_block(tiny: dict[str, str], tmp_path: Path) -> None:
    config = trainer(tmp_path, tiny).model.net.config
    model = Trainee(config, align_depth=1, features=5)
    torch.nn.init.normal_(model.net.final_layer.linear.weight)
    x, t, y = torch.randn(2, 3, 8, 8), torch.rand(2), torch.tensor([0, 3])
    prediction, projected = model(x, t, y)
    assert torch.equal(prediction, model.net(x, t, y)) and projected.shape == (2, 4, 5)
    with pytest.raises(ValueError, match="no block 3"):
        Trainee(config, align_depth=3, features=5)
