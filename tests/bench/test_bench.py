"""Every part of the benchmarks runs through, writes what it says, and judges figures as it should."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.__main__ import PARTS, main
from bench.common import Claim, alternate, quantile, ratios, spread
from bench.scale import Costs, Design, simulate

#: `d` starts the whole service, as tests/cluster does already; `scale` needs the figures of `g`.
QUICK = sorted({*PARTS} - {"d", "scale"})


@pytest.mark.parametrize("part", QUICK)
def test_a_part_runs_through_and_writes_its_figures(
    part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([part, "--quick", "--out", str(tmp_path)])
    found = json.loads((tmp_path / f"{part}.json").read_text())
    assert found["rows"] and found["machine"]["command"] == f"python -m bench {part}"
    assert found["title"] in capsys.readouterr().out
    assert all(isinstance(claim["held"], bool) for claim in found["claims"])


def test_an_unknown_part_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["z"])
    assert "no part z; there are a, b" in capsys.readouterr().err


def test_a_claim_holds_at_its_bound_and_on_its_own_side() -> None:
    assert Claim("x", 1.0, 1.0).held and not Claim("x", 0.9, 1.0).held
    assert Claim("x", 0.9, 1.0, least=False).held and not Claim("x", 1.1, 1.0, least=False).held


def test_things_are_measured_in_turns_after_a_warm_up() -> None:
    calls: list[str] = []

    def measure(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    found = alternate({"a": lambda: measure("a"), "b": lambda: measure("b")}, 2)
    assert calls == ["a", "b"] * 3 and found == {"a": [3, 5], "b": [4, 6]}
    assert ratios(found["b"], found["a"]) == [4 / 3, 6 / 5]


def test_spread_and_quantiles() -> None:
    assert spread([3, 1, 2]) == {"median": 2, "low": 1, "high": 3}
    assert [quantile([4, 1, 3, 2], part) for part in (0.0, 0.5, 0.99)] == [1, 3, 4]


def test_in_the_simulation_a_coordinator_that_holds_few_jobs_makes_the_others_wait() -> None:
    costs = Costs(coordinator=0.001, call=0.001, redis=0.0001)
    few = simulate(Design(1, 1, 2, 1, 8), costs, replicas=4, jobs=40)
    many = simulate(Design(1, 100, 2, 1, 8), costs, replicas=4, jobs=40)
    assert few["wait p50 s"] > many["wait p50 s"] == 0
    assert few["replicas busy"] < many["replicas busy"]


def test_in_the_simulation_slow_coordinators_saturate_first() -> None:
    found = simulate(Design(1, 1000, 2, 1, 8), Costs(coordinator=0.5, call=0.25, redis=0.0001), replicas=4, jobs=40)
    assert found["coordinators busy"] > 0.9 > found["replicas busy"]
    assert found["slowdown p99"] > 1
