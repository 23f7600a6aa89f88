from pathlib import Path

import pytest
import yaml
from ray.serve._private.build_app import build_app
from ray.serve.schema import ServeDeploySchema

from deploy import generate
from sitsearch.workers.serving import app as workers_app
from sitsearch.workers.settings import Settings


@pytest.fixture
def env(tmp_path: Path) -> Path:
    return tmp_path / "workers.env"


def test_the_generated_files_are_what_the_settings_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check"]) == 0, capsys.readouterr().err


def test_check_names_a_stale_file_and_leaves_it_alone(
    tmp_path: Path, env: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "deploy" / "serve-config.yaml"
    target.parent.mkdir()
    target.write_text("old")
    env.touch()
    monkeypatch.setattr(generate, "ROOT", target.parent)
    monkeypatch.setattr(generate, "TARGETS", {target: (env,)})
    assert generate.main(["--check"]) == 1
    assert "deploy/serve-config.yaml is stale" in capsys.readouterr().err
    assert target.read_text() == "old"
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


def test_later_files_override_earlier_ones_and_both_the_defaults(tmp_path: Path, env: Path) -> None:
    overlay = tmp_path / "overlay.env"
    env.write_text("SITSEARCH_SAMPLER_REPLICAS=3\nSITSEARCH_BATCH=64\n")
    overlay.write_text("SITSEARCH_BATCH=128\n")
    settings = generate.load([env, overlay])
    assert (settings.sampler_replicas, settings.batch) == (3, 128)
    assert settings.coordinators == Settings.model_fields["coordinators"].default


def test_this_machines_environment_does_not_leak_in(env: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITSEARCH_BATCH", "7")
    env.write_text("SITSEARCH_COORDINATORS=2\n")
    assert generate.load([env]).batch == Settings.model_fields["batch"].default


@pytest.mark.parametrize("line", ["SITSEARCH_BACH=64", "BATCH=64", "SITSEARCH_BATCH=none"])
def test_a_misspelt_name_or_a_bad_value_is_refused(env: Path, line: str) -> None:
    env.write_text(line + "\n")
    with pytest.raises(ValueError):
        generate.load([env])


def test_every_settings_file_of_the_manifests_is_valid() -> None:
    for file in sorted(generate.ROOT.rglob("*.env")):
        generate.load([file])


def test_each_model_and_verifier_becomes_a_deployment_of_its_own(env: Path) -> None:
    env.write_text('SITSEARCH_MODELS=["glyphs", "sit-xl"]\nSITSEARCH_SAMPLER_GPUS=0.5\n')
    config = generate.serve_config(generate.load([env]))
    parsed = ServeDeploySchema.model_validate(yaml.safe_load(yaml.safe_dump(config)))
    (app,) = parsed.applications
    assert sorted(app.deployment_names) == [
        "Coordinator",
        "Sampler-glyphs",
        "Sampler-sit-xl",
        "Verifier-auditor",
        "Verifier-classifier",
        "Verifier-clip_score",
    ]
    options = {d["name"]: d["ray_actor_options"] for d in config["applications"][0]["deployments"]}
    assert options["Sampler-sit-xl"]["num_gpus"] == 0.5
    assert options["Verifier-classifier"]["num_gpus"] == 0


def test_the_arguments_give_back_the_settings_they_came_from(env: Path) -> None:
    env.write_text("SITSEARCH_BATCH=64\nSITSEARCH_COMPILE=true\n")
    settings = generate.load([env])
    args = generate.serve_config(settings)["applications"][0]["args"]
    assert generate.load([env]) == settings
    assert set(args) == set(generate.WORKER_FIELDS)
    rebuilt = Settings(**args)
    assert all(getattr(rebuilt, name) == getattr(settings, name) for name in generate.WORKER_FIELDS)


def test_the_deployments_are_those_that_the_application_builds(env: Path) -> None:
    """Serve refuses a config that names a deployment which the application lacks."""
    env.write_text("SITSEARCH_SAMPLER_REPLICAS=2\n")
    config = generate.serve_config(generate.load([env]))["applications"][0]
    built = build_app(workers_app.build(config["args"]), name=config["name"])
    assert {d.name for d in built.deployments} == {d["name"] for d in config["deployments"]}
    assert config["import_path"] == f"{workers_app.__name__}:{workers_app.build.__name__}"


def test_a_pool_that_scales_is_left_to_the_application(env: Path) -> None:
    env.write_text("SITSEARCH_SAMPLER_REPLICAS=2\nSITSEARCH_SAMPLER_MAX_REPLICAS=8\n")
    config = generate.serve_config(generate.load([env]))["applications"][0]
    (sampler,) = [d for d in config["deployments"] if d["name"] == "Sampler-glyphs"]
    assert "num_replicas" not in sampler
    built = build_app(workers_app.build(config["args"]), name=config["name"])
    (deployment,) = [d for d in built.deployments if d.name == "Sampler-glyphs"]
    scaling = deployment._deployment_config.autoscaling_config
    assert scaling is not None and (scaling.min_replicas, scaling.max_replicas) == (2, 8)


def test_the_base_fits_on_its_pods() -> None:
    """Ray places a replica on one pod: largest first, each where there is room."""
    base = generate.ROOT / "base"
    every = yaml.safe_load_all((base / "rayservice.yaml").read_text())
    service = next(one for one in every if one["kind"] == "RayService")
    (group,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    room = [float(container["resources"]["requests"]["cpu"])] * group["replicas"]
    config = yaml.safe_load(yaml.safe_load((base / "serve-config.yaml").read_text())["spec"]["serveConfigV2"])
    deployments = config["applications"][0]["deployments"]
    wanted = [d["ray_actor_options"]["num_cpus"] for d in deployments for _ in range(d["num_replicas"])]
    for cpus in sorted(wanted, reverse=True):
        place = next(place for place, left in enumerate(room) if left >= cpus)
        room[place] -= cpus
