"""Samplers as state machines: `init` gives the first query, `step` takes its answer and gives the next.

    state = sampler.init(noise)
    while not state.done:
        state = sampler.step(state, network(state.query_x, state.query_t))
    image = state.x

The rows of a state move in lockstep; whoever evaluates the network may batch the queries of many states. A stochastic
sampler says in `state.draw` which noise it wants with the answer (see models/noise.py for where that comes from).
"""

from sitsearch.models.samplers.base import END, Sampler, Spec, State, concat, time_grid
from sitsearch.models.samplers.registry import SAMPLERS, Method, evaluations_per_step, make_sampler

__all__ = [
    "END",
    "SAMPLERS",
    "Method",
    "Sampler",
    "Spec",
    "State",
    "concat",
    "evaluations_per_step",
    "make_sampler",
    "time_grid",
]
