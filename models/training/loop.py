"""The training loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import tee
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sitsearch.models.interpolants import interpolant_named
from sitsearch.models.training import checkpoint, losses
from sitsearch.models.training.config import BadConfig, FlowSection, TrainingConfig
from sitsearch.models.training.data import open_data
from sitsearch.models.training.draws import Plan, Rows, Times, logit_normal_times, uniform_times
from sitsearch.models.training.ema import Ema
from sitsearch.models.training.encoders import ENCODERS
from sitsearch.models.training.optim import make_optimizers, rate
from sitsearch.models.training.trainee import Runner, Trainee

logger = logging.getLogger(__name__)

#: Draws the given rows of a step's batch.
Draw = Callable[[int, Sequence[int]], Rows]


class Trainer:
    """One training run.

    Every process of a distributed run makes one with the same arguments; they share each batch.

    Args:
        config: the settings.
        run: folder of the results, made if need be. If it holds an earlier state, that is gone on from.
        accelerator: the process's place among the others; one is made if not given.

    Attributes:
        step: steps taken.
        ema: the averaged network.
        draw: the random numbers of a step's rows.

    Raises:
        BadConfig: the settings do not fit the data or each other.
        BadWeights: weights cannot be read or do not fit.
    """

    def __init__(self, config: TrainingConfig, run: Path, *, accelerator: Accelerator | None = None) -> None:
        self.config, self.run_folder = config, run
        self.accelerator = accelerator or Accelerator(mixed_precision="no")  # the runner has its own
        device, train, flow = self.accelerator.device, config.train, config.flow
        self.data = open_data(config.data)
        shape = config.model.network(self.data.shape, len(self.data.classes))
        self.interpolant = interpolant_named(flow.interpolant)
        self.rows = share(train.batch, train.accumulate, self.accelerator)
        self.draw: Draw = Plan(
            seed=train.seed,
            batch=train.batch,
            samples=len(self.data),
            order=config.data.order,
            uniforms=self.data.uniforms,
            shape=self.data.shape,
            class_dropout=flow.class_dropout,
            times=times_of(flow),
        )
        align = config.align
        self.encoder = ENCODERS[align.encoder](align.weights, device) if align else None
        torch.manual_seed(train.seed)  # of the initial weights
        self.model = Trainee(
            shape,
            align_depth=align.depth if align else None,
            features=self.encoder.channels if self.encoder else 0,
        )
        if train.init_from:
            checkpoint.load_initial(train.init_from, self.model.net)
        self.model.to(device)
        self.ema = Ema(self.model.net, train.ema, warmup=train.ema_warmup)
        self.optimizers = make_optimizers(self.model, config.optimizer)
        self.step = self._resume()
        self.runner = Runner(self.model, train.precision, compiled=train.compile, accelerator=self.accelerator)

    def train(self) -> None:
        """Take the steps that are left, logging and saving on the way."""
        train, first = self.config.train, self.step
        main = self.accelerator.is_main_process
        if main:
            self.run_folder.mkdir(parents=True, exist_ok=True)
            count = sum(p.numel() for p in self.model.net.parameters())
            logger.info("%.1f M parameters, %d samples, steps %d..%d", count / 1e6, len(self.data), first, train.steps)
        window: list[Tensor] = []
        start = time.monotonic()
        for rows, raw in self.batches(first, train.steps):
            window.append(self.take_step(rows, raw))
            if self.step % train.log_every == 0 or self.step == train.steps:
                terms = self.accelerator.reduce(torch.stack(window).mean(0), "mean").tolist()
                speed = len(window) * train.batch / (time.monotonic() - start)
                if main:
                    named = " ".join(f"{name} {value:.4f}" for name, value in zip(self.terms, terms, strict=True))
                    logger.info("step %d %s %.0f samples/s", self.step, named, speed)
                window, start = [], time.monotonic()
            if main and (self.step % train.save_every == 0 or self.step == train.steps):
                checkpoint.save(self.run_folder, self.step, self.model, self.ema, self.optimizers, self.config)
                checkpoint.write_card(self.run_folder, self.config, self.data, self.ema.net)
        self.accelerator.wait_for_everyone()

    def batches(self, first: int, last: int) -> Iterator[tuple[Rows, Tensor]]:
        """This process's rows of the steps from `first` to before `last`, with the stored samples `[b, ...]`."""
        drawn, to_read = tee(self.draw(step, self.rows) for step in range(first, last))
        loader: DataLoader[Tensor] = DataLoader(
            cast(Dataset[Tensor], self.data),
            sampler=(rows.index.tolist() for rows in to_read),
            batch_size=None,  # an index is a list already
            num_workers=self.config.data.workers,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        return zip(drawn, loader, strict=True)

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the numbers that a step gives."""
        extra = ("contrast", self.config.flow.contrast), ("align", self.config.align)
        return ("loss", *(name for name, used in extra if used))

    def take_step(self, rows: Rows, raw: Tensor) -> Tensor:
        """One step of the optimisers on this process's rows; their losses `[terms]`, the flow's first."""
        config, parts = self.config, self.config.train.accumulate
        size = len(raw) // parts
        total = torch.zeros(len(self.terms), device=self.accelerator.device)
        for part in range(parts):
            piece = slice(part * size, (part + 1) * size)
            with self.runner.accumulating(more=part + 1 < parts):
                loss, terms = self._losses(rows[piece], raw[piece])
                (loss / parts).backward()
            total += terms / parts
        self.runner.collect_gradients()
        if config.optimizer.clip:
            nn.utils.clip_grad_norm_(self.runner.masters, config.optimizer.clip)
        factor = rate(self.step, config.optimizer, config.train.steps)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = config.optimizer.lr * factor
            optimizer.step()
        self.runner.refresh()
        self.ema.update(self.step)
        self.step += 1
        return total

    def _losses(self, rows: Rows, raw: Tensor) -> tuple[Tensor, Tensor]:
        """What is made small (a scalar), and its terms `[terms]`."""
        device, flow, align = self.accelerator.device, self.config.flow, self.config.align
        labels = torch.where(rows.dropped, self.model.net.config.num_classes, self.data.labels[rows.index])
        x = self.data.states(raw.to(device, non_blocking=True), rows.uniforms.to(device))
        noise, t = rows.noise.to(device), rows.t.to(device)
        prediction, projected = self.runner(self.interpolant.interpolate(x, noise, t), t, labels.to(device))
        loss = losses.flow_loss(
            prediction, x, noise, t, interpolant=self.interpolant, kind=flow.prediction, weighting=flow.weighting
        ).mean()
        terms = [loss.detach()]
        if flow.contrast:
            apart = losses.contrast(prediction, self.interpolant.velocity_target(x, noise, t))
            loss, terms = loss - flow.contrast * apart, [*terms, apart.detach()]
        if align and self.encoder and projected is not None:
            alike = losses.alignment(projected, self.encoder(x))
            loss, terms = loss - align.weight * alike, [*terms, alike.detach()]
        return loss, torch.stack(terms)

    def _resume(self) -> int:
        earlier = checkpoint.load(self.run_folder, self.model, self.ema, self.optimizers)
        if earlier is None:
            return 0
        step, settings = earlier
        if step > self.config.train.steps:
            raise BadConfig(f"the run already took {step} steps, more than {self.config.train.steps}")
        if self.accelerator.is_main_process:
            for change in checkpoint.changes(settings, self.config):
                logger.info("changed since step %d: %s", step, change)
        return step


def share(batch: int, accumulate: int, accelerator: Accelerator) -> range:
    """The rows of the batch that this process computes.

    Raises:
        BadConfig: the batch cannot be shared equally.
    """
    count = accelerator.num_processes
    if batch % (count * accumulate):
        raise BadConfig(f"a batch of {batch} cannot be shared by {count} processes in {accumulate} parts each")
    mine = batch // count
    return range(accelerator.process_index * mine, (accelerator.process_index + 1) * mine)


def times_of(flow: FlowSection) -> Times:
    """The distribution of times that the section describes."""
    low, high = losses.train_interval(flow.interpolant, flow.prediction, flow.eps)
    if flow.times == "uniform":
        return uniform_times(low, high)
    return logit_normal_times(low, high, flow.times_mean, flow.times_std, flow.times_uniform)
