"""Ten thousand candidates in one job are as light as ten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from sitsearch.workers.jobs.images import encode_thumbnail
from sitsearch.workers.jobs.job import Candidate, CurvePoint, Progress, Round, Usage
from sitsearch.workers.jobs.logged import logged
from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.jobs.shown import shown
from sitsearch.workers.jobs.store import JobStore
from tests.service.studio.conftest import Studio, disc, settings_of
from tests.workers.jobs.store.makers import make_job, make_request

ROUNDS, EACH = 420, 24
#: Frames of a scroll through the wall, pixels of each, and frames of a second.
FRAMES, STEP, WANTED = 150, 100, 30
MEMORY = 300 * 2**20


async def fill(studio: Studio) -> str:
    """A job of so many rounds that is still under way."""
    store = JobStore.from_url(str(studio.settings.redis_url), studio.settings)
    job = make_job(request=make_request(budget={"nfe": 20 * ROUNDS * EACH}))
    await store.submit(job)
    claim = await store.claim("nobody", block=1)
    assert claim is not None
    pictures = {index: encode_thumbnail(disc(Recipe(seed=1, round=0, index=index))) for index in range(EACH)}
    for number in range(ROUNDS):
        candidates = tuple(
            Candidate(
                id=f"{number}-{index}",
                recipe=Recipe(seed=1, round=number, index=index, ops=(Integrate(to=1.0, steps=20),)),
                nfe=20,
                forwards=40,
                scores={"classifier": ((number * 7919 + index * 104729) % 1000) / 1000},
            )
            for index in range(EACH)
        )
        nfe = 20 * EACH * (number + 1)
        point = CurvePoint(nfe=nfe, forwards=2 * nfe, score=min(0.999, 0.5 + number / 800))
        progress = Progress(nfe_spent=nfe, nfe_budget=20 * ROUNDS * EACH, round=number + 1, best_score=point.score)
        round = Round(round=number, candidates=candidates)
        await store.show(job.id, shown(round, EACH), {f"{number}-{index}": png for index, png in pictures.items()})
        await store.append_round(
            claim,
            logged(round),
            progress=progress.model_copy(update={"curve": (point,)}),
            usage=Usage(nfe_search=nfe),
            images={},
            keep=(),
            candidates=candidates,
        )
    await store.cancel(job.id)
    await store.aclose()
    return job.id


SCROLL = """async ([frames, step]) => {
  const begin = performance.now();
  for (let frame = 0; frame < frames; frame++) {
    scrollBy(0, step);
    await new Promise(requestAnimationFrame);
  }
  return { seconds: (performance.now() - begin) / 1000, cells: document.querySelectorAll('button.cell').length };
}"""


@pytest.fixture
def still(valkey_url: str) -> Iterator[Studio]:
    """A service in which nobody works."""
    running = Studio(settings_of(valkey_url), works=False)
    yield running
    running.close()


#: What a frame takes besides drawing.
OWN = ("ScriptDuration", "LayoutDuration", "RecalcStyleDuration")

COLORS = """() => {
  const row = document.querySelectorAll('.cells canvas')[2];
  const bytes = row.getContext('2d').getImageData(0, 0, row.width, row.height).data;
  return new Set(new Uint32Array(bytes.buffer)).size;
}"""


def test_ten_thousand_candidates_scroll_smoothly_in_bounded_memory(page: Page, still: Studio) -> None:
    page.set_viewport_size({"width": 1280, "height": 860})
    page.goto(f"{still.url}/#/jobs/{still.run(fill(still))}")
    expect(page.locator(".wall-head")).to_contain_text("10,080 candidates in 420 rounds", timeout=60_000)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    before = metrics(session)
    found = page.evaluate(SCROLL, [FRAMES, STEP])
    after = metrics(session)
    assert found["cells"] < 900, "only what is in sight is in the document"
    own = sum(after[name] - before[name] for name in OWN) / FRAMES
    print(f"{FRAMES / found['seconds']:.0f} frames a second, {1000 * own:.1f} ms of the page's own work each")
    assert own < 1 / WANTED / 2, "what is left of a frame is for drawing, which a machine without a GPU does by itself"
    assert page.evaluate(COLORS) > 8, "pictures are drawn"
    session.send("HeapProfiler.collectGarbage")
    held = metrics(session)
    print(f"{held['JSHeapUsedSize'] / 2**20:.0f} MiB of heap, {held['Nodes']:.0f} nodes")
    assert held["JSHeapUsedSize"] < MEMORY and held["Nodes"] < 20_000


def metrics(session: Any) -> dict[str, float]:
    """Chromium's counters of the page."""
    return {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
