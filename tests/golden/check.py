"""Compute every stored array anew and compare. All shapes, grids and settings are read from the files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from sitsearch.models.diffusion import diffusion
from sitsearch.models.guidance import combine
from sitsearch.models.interpolants import Interpolant, interpolant_named
from sitsearch.models.samplers import Sampler, make_sampler
from sitsearch.models.sit import SiT, SiTConfig

DATA = Path(__file__).parent / "data"

#: Largest error allowed: absolute for networks and interpolants, in units of the largest magnitude for samplers.
BOUNDS = {"network": 1e-5, "guidance": 1e-5, "interpolants": 1e-10, "ode": 1e-4, "dopri5": 2e-2, "sde": 1e-4}

ODE_METHODS = {"euler": "euler", "midpoint": "midpoint", "heun2": "heun", "heun3": "heun3", "rk4": "rk4"}
SDE_METHODS = {"Euler": "euler_maruyama", "Heun": "heun_sde"}
#: Attempts that an adaptive trajectory may make: enough never to bind.
ATTEMPTS = 10_000
#: Norm of the stored diffusion coefficients, and norm and last step size of the stored SDE runs.
DIFFUSION_NORM, SDE_NORM, LAST_STEP_SIZE = 1.3, 1.0, 0.04

Arrays = dict[str, Tensor]


class GoldenError(Exception):
    """The folder is not in the golden format."""


@dataclass(frozen=True)
class Error:
    """How far one array is off; NaN where ours is not finite or has another shape."""

    family: str
    key: str
    value: float


@dataclass(frozen=True)
class Family:
    """Arrays that share a bound."""

    name: str
    bound: float
    errors: tuple[Error, ...]

    @property
    def count(self) -> int:
        return len(self.errors)

    @property
    def worst(self) -> float:
        """The largest error; NaN if any is."""
        return float(np.max([error.value for error in self.errors]))

    @property
    def failures(self) -> list[tuple[str, float]]:
        return [(error.key, error.value) for error in self.errors if not error.value <= self.bound]

    @property
    def ok(self) -> bool:
        return not self.failures


def check(folder: Path) -> list[Family]:
    """Compare everything in `folder`.

    Raises:
        GoldenError: a file or an array is missing or unknown.
    """
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise GoldenError("it holds no .npz file")
    errors: list[Error] = []
    with torch.no_grad():
        for file in files:
            try:
                errors += list(_check_file(file))
            except (KeyError, ValueError, OSError) as error:
                raise GoldenError(f"{file.name}: {error}") from error
    return [
        Family(name, bound, members)
        for name, bound in BOUNDS.items()
        if (members := tuple(error for error in errors if error.family == name))
    ]


def _check_file(file: Path) -> Iterator[Error]:
    with np.load(file) as stored:
        numbers = {key: torch.from_numpy(stored[key]) for key in stored.files if stored[key].dtype.kind in "fi"}
        config = str(stored["config"]) if "config" in stored.files else None
    if config is not None:
        return _network(file, json.loads(config), numbers)
    return _interpolants(numbers) if not any(key == "z" for key in numbers) else _samplers(numbers)


def _error(family: str, key: str, ours: Tensor, golden: Tensor, *, relative: bool = False) -> Error:
    if ours.shape != golden.shape:
        return Error(family, f"{key} (shape {tuple(ours.shape)}, not {tuple(golden.shape)})", float("nan"))
    error = (ours.double() - golden.double()).abs().max()
    if relative:
        error = error / golden.double().abs().max()
    return Error(family, key, float(error))


# --- networks ----------------------------------------------------------------------------------------------------


def _network(file: Path, config: dict[str, int | bool], arrays: Arrays) -> Iterator[Error]:
    net = SiT(SiTConfig(**config))  # type: ignore[arg-type]
    net.load_state_dict(load_file(file.with_suffix(".safetensors")))
    net.eval()
    x, t, y = arrays["x"], arrays["t"], arrays["y"]
    conditional = net(x, t, y)
    unconditional = net(x, t, torch.full_like(y, net.config.num_classes))
    yield _error("network", f"{file.stem}/out", conditional, arrays["out"])
    for key in sorted(key for key in arrays if key.startswith("cfg_")):
        scale = float(key.removeprefix("cfg_").replace("_", "."))
        guided = combine(conditional, unconditional, scale, channels="first3")
        yield _error("guidance", f"{file.stem}/{key}", guided, arrays[key])


# --- interpolants ------------------------------------------------------------------------------------------------

INPUTS = ("t", "x", "field", "x0")


def _interpolants(arrays: Arrays) -> Iterator[Error]:
    for key, golden in arrays.items():
        path, _, name = key.partition("/")
        if name not in INPUTS:
            inputs = {given: arrays[f"{path}/{given}"] for given in INPUTS}
            yield _error("interpolants", key, _interpolant_value(interpolant_named(path), name, **inputs), golden)


def _interpolant_value(path: Interpolant, name: str, t: Tensor, x: Tensor, field: Tensor, x0: Tensor) -> Tensor:
    if name.startswith("diffusion/"):
        return diffusion(name.removeprefix("diffusion/"), path, t, DIFFUSION_NORM)
    if name in ("alpha", "d_alpha", "sigma", "d_sigma", "d_log_alpha"):
        coefficient: Tensor = getattr(path, name)(t)
        return coefficient
    if "_from_" in name:
        target, source = name.split("_from_")
        return path.convert(field, x, t, source, target)
    match name:
        case "drift":
            return -path.d_log_alpha(t)[:, None] * x
        case "drift_var":
            return path.drift_variance(t)[:, None]
        case "xt":
            return path.interpolate(x, x0, t)
        case "ut":
            return path.velocity_target(x, x0, t)
    raise KeyError(f"unknown array {path.name}/{name}")


# --- samplers ----------------------------------------------------------------------------------------------------


def analytic_field(x: Tensor, t: Tensor) -> Tensor:
    """The network of the stored runs: f(x, t) = tanh(x) (1 + t) - 0.3 x + 0.1 sin(3 t)."""
    t = t.reshape(-1, *[1] * (x.dim() - 1))
    return torch.tanh(x) * (1 + t) - 0.3 * x + 0.1 * torch.sin(3 * t)


def integrate(sampler: Sampler, x: Tensor, noise: Tensor | None = None) -> Tensor:
    """Run a sampler on the analytic field; `noise [draws, B, ...]` for a stochastic one."""
    state = sampler.init(x, noise[0] if noise is not None and sampler.noise_at_start else None)
    while not state.done:
        drawn = noise[state.draw] if noise is not None and state.draw is not None else None
        state = sampler.step(state, analytic_field(state.query_x, state.query_t), drawn)
    final: Tensor = state.x
    return final


def _samplers(arrays: Arrays) -> Iterator[Error]:
    z = arrays["z"]
    for key, golden in arrays.items():
        kind, *setting = key.split("/")
        if kind == "ode":
            path, prediction, method, points = setting
            family = "dopri5" if method == "dopri5" else "ode"
            yield _error(family, key, integrate(_ode(path, prediction, method, int(points)), z), golden, relative=True)
        elif kind == "sde":
            *names, points = setting
            ours = integrate(_sde(*names, points=int(points)), z, arrays[f"sde_noise/{points}"])
            yield _error("sde", key, ours, golden, relative=True)
        elif kind not in ("z", "sde_noise"):
            raise KeyError(f"unknown array {key}")


def _ode(path: str, prediction: str, method: str, points: int) -> Sampler:
    if method == "dopri5":
        return make_sampler("dopri5", steps=ATTEMPTS, interpolant=path, prediction=prediction, rtol=1e-3, atol=1e-6)
    return make_sampler(ODE_METHODS[method], steps=points - 1, interpolant=path, prediction=prediction)


def _sde(path: str, prediction: str, method: str, form: str, last: str, *, points: int) -> Sampler:
    last_step = None if last == "None" else last
    return make_sampler(
        SDE_METHODS[method],
        steps=points - 1 + (last_step is not None),
        interpolant=path,
        prediction=prediction,
        diffusion=form,
        norm=SDE_NORM,
        last_step=last_step,
        last_step_size=LAST_STEP_SIZE,
    )
