"""The Ray Serve application: `serve run sitsearch.workers.serving.app:build`, or `python -m
sitsearch.workers.serving.app` for one machine.

It has no HTTP route of its own: jobs come from Redis, and the gateway is a process apart.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import Any

import ray
import torch
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, HTTPOptions, RequestRouterConfig
from ray.serve.schema import LoggingConfig

from sitsearch.workers.engine.machine import cores
from sitsearch.workers.serving.coordinator import Coordinator
from sitsearch.workers.serving.pools import verifier_pools
from sitsearch.workers.serving.sampler import SamplerReplica
from sitsearch.workers.serving.verifier import VerifierReplica
from sitsearch.workers.settings import Settings, settings

APP_NAME = "sitsearch"
QUIET = LoggingConfig(enable_access_log=False)
SLOTS = RequestRouterConfig(request_router_class="sitsearch.workers.serving.routing:SlotRouter")
#: Calls in flight a replica; the engine batches them, so many more than Serve's default are welcome.
SAMPLER_CALLS, VERIFIER_CALLS = 256, 16
#: Most sampler replicas of a model on one machine, if nothing else was said: each has weights of its own in memory.
LOCAL_SAMPLERS = 4
#: Seconds between two rounds of Serve's controller on one machine, whose cores it shares; Serve's own default is 0.1.
CONTROL_LOOP = "0.5"
#: Seconds between two reports of a sampler whose pool scales.
METRICS_INTERVAL = 1.0
#: Seconds between Serve's looks at whether a replica is there yet.
HEALTH_CHECK = 2.0


def build(args: dict[str, Any] | None = None) -> serve.Application:
    """The application; `args` override the `SITSEARCH_*` settings by field name."""
    config = Settings(**(args or {}))
    shared = config.model_dump(mode="json")
    verifiers = {
        name: serve.deployment(VerifierReplica)
        .options(
            name=f"Verifier-{name}",
            num_replicas=pool.replicas,
            max_ongoing_requests=VERIFIER_CALLS,
            ray_actor_options={"num_cpus": pool.cpus, "num_gpus": pool.gpus},
            logging_config=QUIET,
        )
        .bind(name, pool.batch, config.models)
        for name, pool in verifier_pools(config).items()
    }
    samplers = {
        model: serve.deployment(SamplerReplica)
        .options(
            name=f"Sampler-{model}",
            max_ongoing_requests=SAMPLER_CALLS,
            request_router_config=SLOTS,
            **_pool_size(config),
            ray_actor_options={"num_cpus": 1, "num_gpus": config.sampler_gpus},
            health_check_period_s=HEALTH_CHECK,
            logging_config=QUIET,
        )
        .bind(model, shared, verifiers)
        for model in config.models
    }
    return (
        serve.deployment(Coordinator)
        .options(
            name="Coordinator",
            num_replicas=config.coordinators,
            ray_actor_options={"num_cpus": 0.1},
            health_check_period_s=HEALTH_CHECK,
            logging_config=QUIET,
        )
        .bind(shared, samplers, verifiers)
    )


def _pool_size(config: Settings) -> dict[str, Any]:
    """Serve's options for a sampler pool that is fixed, or grows with the work that is queued."""
    if config.most_samplers == config.least_samplers:
        return {"num_replicas": config.least_samplers}
    policy = AutoscalingPolicy(
        policy_function="sitsearch.workers.serving.scaling:QueuedWork", policy_kwargs={"target": config.sampler_queue}
    )
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=config.least_samplers,
            max_replicas=config.most_samplers,
            policy=policy,
            metrics_interval_s=METRICS_INTERVAL,
            look_back_period_s=config.sampler_queue,
            upscale_delay_s=config.sampler_queue,
        )
    }


def shares_of_machine(config: Settings, cores: int, *, gpu: bool) -> dict[str, int]:
    """How many sampler replicas a model has on one machine, and threads a replica, where the settings leave it open.

    On the CPU, replicas of few threads make more of the cores than one of many: its threads wait for one another in
    every layer, and so for whatever else runs beside one of them.
    """
    alone = gpu or config.sampler_max_replicas is not None
    replicas = config.sampler_replicas or (1 if alone else min(cores, LOCAL_SAMPLERS))
    threads = config.sampler_threads or max(1, cores // max(replicas, config.sampler_max_replicas or 0))
    return {"sampler_replicas": replicas, "sampler_threads": threads}


def main() -> None:
    """Start a local Ray and the application in it, and run until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    shares = shares_of_machine(settings(), cores(), gpu=torch.cuda.is_available())
    config = settings().model_copy(update=shares)
    os.environ.setdefault("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", CONTROL_LOOP)
    stop = threading.Event()
    # Ray counts logical CPUs: the pools share the real ones, and torch is given them all.
    pools = verifier_pools(config).values()
    replicas = config.most_samplers * len(config.models) + sum(pool.replicas for pool in pools)
    ray.init(
        address="local",  # never a Ray that someone else runs here, or whose address was left behind
        num_cpus=max(cores(), 2 + replicas + config.coordinators),
        include_dashboard=False,
        log_to_driver=False,
        namespace=APP_NAME,
        _node_ip_address="127.0.0.1",
    )
    for number in (signal.SIGTERM, signal.SIGINT):  # after ray.init, which installs its own
        signal.signal(number, lambda *_: stop.set())
    try:
        serve.start(http_options=HTTPOptions(location="NoServer"), logging_config=QUIET)
        serve.run(build(shares), name=APP_NAME, route_prefix=None)
        stop.wait()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
