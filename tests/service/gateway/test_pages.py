"""The studio's pages and assets, as the gateway serves them."""

from __future__ import annotations

import re

import httpx
import pytest

from sitsearch.service.studio import STATIC

TEXTS = [path for path in sorted(STATIC.rglob("*")) if path.suffix in {".js", ".css", ".html", ".svg"}]
OWN = [path for path in TEXTS if "swagger" not in path.parts]


@pytest.mark.parametrize("page", ["/", "/docs"])
async def test_a_page_and_all_that_it_names_are_there_under_a_strict_policy(http: httpx.AsyncClient, page: str) -> None:
    answer = await http.get(page)
    assert answer.status_code == 200 and "{{" not in answer.text
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["script-src"] == "'self'" and policy["default-src"] == "'none'"
    assert ("unsafe-inline" in policy["style-src"]) == (page == "/docs")
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|<style|\sstyle=", answer.text), "nothing inline"
    named = set(re.findall(r'(?:src|href)="(studio/[^"#]+)', answer.text))
    assert len(named) >= 3
    for address in named:
        asset = await http.get("/" + address)
        assert asset.status_code == 200 and asset.headers["x-content-type-options"] == "nosniff"
        again = await http.get("/" + address, headers={"If-None-Match": asset.headers["etag"]})
        assert again.status_code == 304


async def test_modules_import_what_is_there(http: httpx.AsyncClient) -> None:
    for module in sorted((STATIC / "js").glob("*.js")):
        answer = await http.get(f"/studio/js/{module.name}")
        assert answer.headers["content-type"].startswith("text/javascript")
        for name in re.findall(r'from "\./([^"]+)"', module.read_text()):
            assert (STATIC / "js" / name).exists(), f"{module.name} imports {name}"


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_nothing_is_fetched_from_elsewhere(path: object) -> None:
    addresses = re.findall(r"https?://[^\s\"'`)]+", path.read_text())  # type: ignore[attr-defined]
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}


async def test_addresses_begin_at_the_root_and_lead_to_no_other_files(http: httpx.AsyncClient) -> None:
    assert '<base href="/" />' in (await http.get("/")).text
    assert (await http.get("/studio/../app.py")).status_code == 404
    assert (await http.get("/studio/nothing.js")).status_code == 404
