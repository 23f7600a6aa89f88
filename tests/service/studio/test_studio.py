"""A search in the browser, from the first letter that is typed to the comparison with another one."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.service.studio.conftest import Studio, settings_of, violations

DONE = re.compile("succeeded")


def field(page: Page, name: str) -> Any:
    """The field of the form of that dotted name."""
    return page.locator(f'[data-field="{name}"]')


def search(page: Page, studio: Studio, algorithm: str = "zero_order", nfe: int = 400, root: str = "/") -> str:
    """Fill in the form and begin; the job's id."""
    page.goto(studio.url + root + "#/")
    field(page, "search.algorithm").locator("select").select_option(algorithm)
    page.get_by_text("Sampler, seed and stops").click()
    field(page, "sampler.method").locator("select").select_option("euler")
    field(page, "sampler.steps").locator("input").fill("20")
    field(page, "budget.nfe").locator("input[type=number]").fill(str(nfe))
    page.get_by_role("button", name="Search", exact=True).click()
    page.wait_for_url(re.compile(r"#/jobs/\w+$"))
    return page.url.rsplit("/", 1)[1]


def done(page: Page) -> None:
    """The search has ended well."""
    expect(page.locator(".state")).to_have_class(DONE, timeout=60_000)


def cell(page: Page, number: int) -> None:
    """So many candidates are on the wall."""
    page.locator("button.cell").nth(number - 1).wait_for(state="attached")


def drawn(page: Page) -> None:
    """The best picture is there."""
    image = page.locator("figure.best img")
    expect(image).to_be_visible()
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 32


def ids(page: Page) -> list[str]:
    """The candidates on the wall."""
    found: list[str] = page.eval_on_selector_all("button.cell", "all => all.map(one => one.dataset.id)")
    return found


def test_the_plan_follows_what_is_typed(page: Page, studio: Studio) -> None:
    page.goto(studio.url)
    nfe, count = field(page, "budget.nfe").locator("input[type=number]"), page.locator(".plan .big b")
    expect(count).to_have_text(re.compile(r"\d+"))
    field(page, "search.algorithm").locator("select").select_option("random")
    nfe.fill("1000")
    page.get_by_text("Sampler, seed and stops").click()
    field(page, "sampler.method").locator("select").select_option("euler")
    field(page, "sampler.steps").locator("input").fill("20")
    expect(count).to_have_text("50")
    expect(page.locator(".plan dl")).to_contain_text("about")
    nfe.fill("100")
    expect(count).to_have_text("5")
    assert violations(page) == []


def test_bad_input_is_shown_at_its_field(page: Page, studio: Studio) -> None:
    page.goto(studio.url)
    nfe = field(page, "budget.nfe").locator("input[type=number]")
    nfe.fill("5")
    expect(field(page, "budget.nfe").locator(".fault")).to_contain_text("at least")
    field(page, "search.algorithm").locator("select").select_option("zero_order")
    page.get_by_text("Options of the search").click()
    field(page, "search.neighbors").locator("input").fill("0")
    page.get_by_role("button", name="Search", exact=True).click()
    neighbors = field(page, "search.neighbors")
    expect(neighbors.locator(".fault")).to_contain_text("minimum")
    expect(neighbors.locator("input")).to_be_focused()
    assert neighbors.locator("input").get_attribute("aria-invalid") == "true"
    assert violations(page) == []
    neighbors.locator("input").fill("4")
    nfe.fill("400")
    expect(page.locator(".plan .big b")).to_have_text(re.compile(r"\d+"))
    expect(page.locator(".fault:not(:empty)")).to_have_count(0)


def test_a_search_is_seen_from_its_first_candidate_to_its_winner(page: Page, studio: Studio) -> None:
    studio.painter.pause = 0.15
    job = search(page, studio)
    expect(page.locator(".state")).to_contain_text("searching")
    cell(page, 3)
    spent = int(page.locator(".meter").get_attribute("aria-valuenow") or 0)
    assert 0 < spent < 400, "it is seen while it goes on"
    studio.painter.pause = 0.0
    done(page)
    record = studio.get(f"/jobs/{job}")
    assert len(ids(page)) == len(set(ids(page))) == record["result"]["candidates"]
    best = record["result"]["images"][0]["candidate"]["id"]
    assert page.locator("button.cell.top").get_attribute("data-id") == best
    number = page.locator("figure.best .number").inner_text().replace("\N{MINUS SIGN}", "-")
    assert float(number) == pytest.approx(record["progress"]["best_score"], abs=6e-4)
    expect(page.locator(".chart path.best")).to_have_count(1)
    drawn(page)
    assert violations(page) == []
    page.locator("figure.best .frame").click()
    tree = page.locator(".tree a")
    expect(tree.first).to_be_visible()
    family = studio.get(f"/jobs/{job}/candidates/{best}")["family"]
    assert tree.count() == len(family) > 2
    assert violations(page) == []
    tree.first.click()
    expect(page.locator(".detail h2")).to_contain_text("Candidate")
    page.keyboard.press("Escape")
    expect(page.locator("dialog[open]")).to_have_count(0)


def test_a_search_goes_on_from_a_candidate(page: Page, studio: Studio) -> None:
    job = search(page, studio)
    done(page)
    page.locator("figure.best .frame").click()
    page.get_by_role("button", name="Search from here").click()
    page.wait_for_url(re.compile(rf"#/jobs/(?!{job})\w+$"))
    done(page)
    started = studio.get(f"/jobs/{page.url.rsplit('/', 1)[1]}")
    best = studio.get(f"/jobs/{job}")["result"]["images"][0]
    assert started["request"]["start_from"]["candidate"] == best["candidate"]["id"]
    assert started["progress"]["curve"][0]["score"] == best["score"], "its first candidate is that one"
    page.locator("figure.first .frame").click()
    page.get_by_role("button", name="Make again").click()
    page.wait_for_url(re.compile(rf"#/jobs/(?!{started['id']}|{job})\w+$"))
    done(page)
    again = studio.get(f"/jobs/{page.url.rsplit('/', 1)[1]}")
    assert again["result"]["candidates"] == 1 and again["progress"]["best_score"] == best["score"]


def test_extend_compare_cancel_and_resume(page: Page, studio: Studio) -> None:
    job = search(page, studio, "random", 320)
    done(page)
    page.get_by_role("button", name="Extend…").click()
    page.get_by_label("New budget in all").fill("10")
    page.get_by_role("button", name="Extend", exact=True).click()
    expect(page.locator("dialog .fault")).to_contain_text("more than")
    page.get_by_label("New budget in all").fill("640")
    page.get_by_role("button", name="Extend", exact=True).click()
    expect(page.locator("div.spent")).to_contain_text("640 of 640")
    done(page)
    assert len(ids(page)) == 32
    page.get_by_role("button", name="Change and compare").click()
    field(page, "search.algorithm").locator("select").select_option("zero_order")
    page.get_by_role("button", name="Search", exact=True).click()
    page.wait_for_url(re.compile(rf"#/jobs/(?!{job})\w+$"))
    done(page)
    page.get_by_role("link", name="Compare").click()
    expect(page.locator(".versus article h2")).to_contain_text(["random", "zero_order"])
    expect(page.locator(".chart path.best")).to_have_count(2)
    assert violations(page) == []
    studio.painter.pause = 0.3
    search(page, studio, "random", 2000)
    expect(page.locator(".state")).to_contain_text("searching")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".state")).to_contain_text("canceled")
    studio.painter.pause = 0.0
    page.get_by_role("button", name="Resume").click()
    done(page)
    page.goto(studio.url + "/#/jobs")
    expect(page.locator(".job-card").first).to_be_visible()
    assert violations(page) == []
    page.get_by_role("searchbox").fill("zero_order")
    expect(page.locator(".job-card").first).to_contain_text("zero_order")
    page.get_by_role("radio", name="table").check()
    expect(page.locator(".jobs-table tbody tr").first).to_be_visible()
    assert violations(page) == []
    page.get_by_role("radio", name="gallery").check()


def test_a_reload_and_a_lost_connection_lose_nothing(page: Page, studio: Studio) -> None:
    studio.painter.pause = 0.25
    job = search(page, studio, "random", 3200)
    cell(page, 16)
    page.reload()
    cell(page, 32)
    studio.stop()
    expect(page.locator(".state")).to_contain_text("connection lost")
    time.sleep(1)
    studio.start()
    studio.painter.pause = 0.05
    done(page)
    rounds = studio.get(f"/jobs/{job}/rounds?limit=500")["rounds"]
    everyone = [candidate["id"] for one in rounds for candidate in one["candidates"]]
    expect(page.locator(".wall-head")).to_contain_text(f"{len(everyone)} candidates in {len(rounds)} rounds")
    assert len(everyone) == len(set(everyone)) == 160


class Guarded:
    """Asks for a key where the interface does, and shows everything under a prefix."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        scope = scope | {"root_path": "/deep"}
        route, headers = scope["path"].removeprefix("/deep"), dict(scope["headers"])
        open_to_all = route in ("/", "/docs", "/openapi.json", "/favicon.ico") or route.startswith("/studio/")
        if not open_to_all and headers.get(b"authorization") != b"Bearer secret":
            await send(
                {"type": "http.response.start", "status": 401, "headers": [(b"content-type", b"application/json")]}
            )
            return await send({"type": "http.response.body", "body": b'{"title": "a key is needed"}'})
        await self.app(scope, receive, send)


@pytest.fixture
def guarded(valkey_url: str) -> Iterator[Studio]:
    running = Studio(settings_of(valkey_url), Guarded)
    yield running
    running.close()


def test_with_keys_and_behind_a_prefix(page: Page, guarded: Studio) -> None:
    page.goto(guarded.url + "/deep/")
    expect(page.get_by_role("heading", name="This service asks for a key")).to_be_visible()
    page.get_by_role("button", name="Key").click()
    page.get_by_label("Key", exact=True).fill("secret")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".plan .big")).to_be_visible(timeout=30_000)
    search(page, guarded, root="/deep/")
    done(page)
    drawn(page)
    page.goto(guarded.url + "/deep/docs")
    expect(page.locator(".opblock").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_on_a_phone_with_the_keyboard_alone(browser: Browser, studio: Studio, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(studio.url)
    page.locator(".plan .big").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert violations(page) == []
    job = search(page, studio, "random", 320)
    done(page)
    page.locator("button.cell").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.id") == "0-2"
    page.keyboard.press("Enter")
    expect(page.locator(".detail h2")).to_have_text("Candidate 0-2")
    page.keyboard.press("Escape")
    expect(page.locator("dialog[open]")).to_have_count(0)
    assert page.evaluate("document.activeElement.dataset.id") == "0-2", "the focus comes back"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert violations(page) == [], job
    context.close()
