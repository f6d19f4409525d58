"""The page of a study in a real browser: figures, the grid, every link; nothing from the network, nothing too wide."""

import json
import os
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from browser import CHROMIUM, browser
from smoke_study import smoke  # noqa: F401

pytestmark = pytest.mark.skipif(CHROMIUM is None or os.name != "posix",
                                reason="no Chromium on this machine that the page could be shown in")


@pytest.fixture(scope="module")
def chromium():
    with browser() as opened:
        yield opened


@pytest.fixture(params=[1280, 420], ids=["wide", "narrow"])
def page(request, chromium, smoke):  # noqa: F811
    chromium.open(smoke.folder / "index.html", request.param)
    return chromium


def test_the_page_shows_at_least_three_figures(page):
    figures = page.ask("[...document.querySelectorAll('figure img')].map(i => ({wide: i.naturalWidth, alt: i.alt, "
                       "loaded: i.complete, shown: i.getBoundingClientRect().width, "
                       "caption: i.closest('figure').querySelector('figcaption').textContent}))")
    assert len(figures) >= 3 and all(one["loaded"] and one["wide"] > 300 and one["shown"] > 300 for one in figures)
    assert all("95 % intervals over" in one["caption"] for one in figures)
    assert all("Vertical: " in one["alt"] and "Made by" not in one["alt"] for one in figures)


def test_the_grid_has_as_many_entries_as_the_plan(page, smoke):  # noqa: F811
    plan = json.loads((smoke.folder / "plan.json").read_text("utf-8"))
    entries = page.ask("[...document.querySelectorAll('[data-cell]')].map(e => [e.className, e.textContent])")
    assert len(entries) == plan["cells_in_all"] == sum(len(job["cells"]) for job in plan["jobs"])
    absent = [text for kind, text in entries if kind == "absent"]
    assert absent == ["–"] * 4  # the floor `imagenet` without weights: two protocols, two budgets
    assert all(text.isdigit() for kind, text in entries if kind != "absent")


def test_the_answer_comes_first_then_what_deserves_a_look_then_the_grid(page):
    sections = page.ask("[...document.querySelectorAll('section')].map(s => s.id)")
    assert sections == ["answer", "look", "grid", "about", "more"]
    top, look = page.ask("['#answer', '#look'].map(name => document.querySelector(name).innerText)")
    assert top.startswith("Does every part of a study work on this machine?") and "1:100" in top.split("\n")[2]
    assert "cells worth opening" in look


def test_nothing_is_wrong_and_nothing_comes_from_the_network(page):
    assert page.errors() == []
    addresses = page.requested()
    assert addresses and {urlsplit(address).scheme for address in addresses} <= {"file", "data"}
    assert page.ask("performance.getEntriesByType('resource').filter(e => !/^(file|data):/.test(e.name)).length") == 0


def test_nothing_is_wider_than_the_window(page):
    across = "[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]"
    html, body, window = page.ask(across)
    assert html <= window and body <= window
    clipped = page.ask("[...document.querySelectorAll('p, li, figcaption, h1, h2')].filter("
                       "e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent.slice(0, 60))")
    assert clipped == []


@pytest.mark.parametrize("width", [1280, 420])
def test_a_report_is_whole_and_fits_too(chromium, smoke, width):  # noqa: F811
    for stage in ("pretrain", "probe"):
        report = sorted((smoke.folder / "runs" / stage).glob("simclr-fashion-lt100-*/report.html"))[0]
        chromium.open(report, width)
        assert chromium.errors() == [] and {urlsplit(a).scheme for a in chromium.requested()} <= {"file", "data"}
        assert chromium.ask("document.body.scrollWidth <= innerWidth"), report.parent.name
        assert chromium.ask("[...document.images].filter(i => i.naturalWidth > 300).length") >= 3
        text = chromium.ask("document.body.innerText")
        assert "Alarm:" in text or "No alarms." in text


class Links(HTMLParser):
    """All that a page points to, and the names that can be pointed at."""

    def __init__(self, path):
        super().__init__()
        self.to, self.names = [], {""}
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.to += [attributes[name] for name in ("href", "src") if attributes.get(name)]
        self.names |= {attributes[name] for name in ("id", "name") if attributes.get(name)}


def test_every_link_leads_somewhere_from_the_page_and_from_every_page_behind_it(smoke):  # noqa: F811
    todo, seen, dead = [smoke.folder / "index.html"], {}, []
    while todo:
        path = todo.pop()
        seen[path] = Links(path)
        for link in seen[path].to:
            parts = urlsplit(link)
            if parts.scheme in ("data", "http", "https"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_relative_to(smoke.folder), f"{path.name}: {link} leads out of the study's folder"
            if not target.exists():
                dead.append(f"{path.name}: {link}")
            elif target.suffix == ".html" and target not in seen and target not in todo:
                todo.append(target)
    for path, links in seen.items():
        for parts in map(urlsplit, links.to):
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if parts.fragment and not parts.scheme and unquote(parts.fragment) not in seen[target].names:
                dead.append(f"{path.name}: no #{parts.fragment} in {target.name}")
    assert not dead, dead
    reports = {path.parent for path in smoke.folder.glob("runs/*/*/report.ipynb")}
    assert len(reports) == 10 and {path.parent for path in seen if path.name == "report.html"} == reports
    assert smoke.folder / "40_compare.html" in seen
