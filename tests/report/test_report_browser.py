"""The page in a real browser, where there is one: it draws, sorts and searches, offline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, executable
from sample_database import POLICY, default, failed, fill, other, problem

from fa4gen.core.outcome import Outcome
from fa4gen.db import TuningStore
from fa4gen.report.page.gather import gather
from fa4gen.report.page.render import write
from fa4gen.report.page.views import ReportView

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(executable() is None, reason="needs Chromium; there is none here"),
]

EVIL = '</script><script>window.harmed = 1</script><img src=x onerror="window.harmed = 2">'


@pytest.fixture(scope="module")
def report() -> ReportView:
    with TuningStore.open(":memory:", with_shipped=False) as store:
        fill(store)
        asked = problem(batch=5)
        made = other(gpu_name=EVIL, driver=EVIL)
        store.record(asked, default(asked), failed(Outcome.CRASHED, EVIL, made), POLICY)
        return gather(store).report


@pytest.fixture(scope="module")
def page(report: ReportView, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write(report, path)
    return path


@pytest.fixture(scope="module")
def browser(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A laptop's screen."""
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def at_the_start(browser: Browser, page: Path) -> None:
    browser.prefer("light")
    browser.open(page)


ROWS = "Array.from(document.querySelectorAll('tbody.problem'))"
NAMES = f"{ROWS}.filter(row => !row.hidden).map(row => row.querySelector('th').innerText)"


def click(browser: Browser, heading: str) -> None:
    browser.run(
        "Array.from(document.querySelectorAll('#table > thead button'))"
        f".find(button => button.innerText === {heading!r}).click()"
    )


def column(browser: Browser, index: int) -> list[str]:
    return browser.run(f"{ROWS}.map(row => row.rows[0].cells[{index}].dataset.value)")


def test_it_loads_without_an_error_and_without_a_network(
    browser: Browser, report: ReportView
) -> None:
    assert browser.logged == []
    assert [url for url in browser.requested if not url.startswith(("file:", "data:"))] == []
    assert browser.run(f"{ROWS}.length") == len(report.problems)
    assert browser.run("window.harmed === undefined")


def test_every_chart_is_drawn_and_fits_the_screen(browser: Browser) -> None:
    charts = "Array.from(document.querySelectorAll('.chart'))"
    assert browser.run(f"{charts}.length") == 4
    assert browser.run(f"{charts}.every(chart => chart.querySelector('svg.main-svg'))")
    assert browser.run(f"{charts}.every(chart => chart.getAttribute('aria-label'))")
    assert browser.run("document.documentElement.scrollWidth") <= 1366
    assert browser.run(f"{charts}.every(chart => chart.scrollWidth <= chart.clientWidth)")


def test_a_heading_sorts_and_sorts_back(browser: Browser) -> None:
    before = browser.run(NAMES)
    click(browser, "gain")
    gains = column(browser, 4)
    numbers = [float(value) for value in gains if value]
    assert numbers == sorted(numbers, reverse=True)
    assert gains[len(numbers) :] == ["", ""], "what has no gain comes last"
    assert browser.run("document.querySelectorAll('[aria-sort=descending]').length") == 1
    click(browser, "gain")
    gains = column(browser, 4)
    assert [float(value) for value in gains if value] == sorted(numbers)
    assert gains[len(numbers) :] == ["", ""]
    click(browser, "problem")
    assert browser.run(NAMES) == before


def test_search_wants_all_words_and_says_how_many_have_them(browser: Browser) -> None:
    def search(words: str) -> list[str]:
        browser.run(
            "(() => { const box = document.querySelector('#search');"
            f"box.value = {words!r}; box.dispatchEvent(new Event('input')); }})()"
        )
        return browser.run(NAMES)

    everything = browser.run(NAMES)
    assert search("d64 CAUSAL pingpong") == ["b2 s1024 h8 d64 bf16 causal"]
    assert browser.run("document.querySelector('#count').innerText") == "1 of 6 problems"
    assert search("d64 dense") == []
    assert browser.run("!document.querySelector('#nothing').hidden")
    assert len(search('"no winner"')) == 2
    assert search("") == everything


def test_a_row_opens_and_closes(browser: Browser) -> None:
    def visible() -> list[bool]:
        return browser.run(f"{ROWS}.map(row => row.querySelector('.detail').offsetHeight > 0)")

    assert not any(visible())
    browser.run("document.querySelector('#p2 button.open').click()")
    assert visible() == [number == 1 for number in range(6)]
    assert browser.run("document.querySelector('#p2 button').getAttribute('aria-expanded')") == (
        "true"
    )
    browser.run("document.querySelector('#open-all').click()")
    assert all(visible())
    assert browser.run("document.documentElement.scrollWidth") <= 1366
    browser.run("document.querySelector('#open-all').click()")
    assert not any(visible())
    browser.run(
        "new Promise(done => { addEventListener('hashchange', () => done(1), { once: true });"
        "location.hash = 'p3'; })"
    )
    assert visible() == [number == 2 for number in range(6)]


def test_colours_follow_the_reader_and_stay_readable(browser: Browser) -> None:
    """Contrast of text on its background, by WCAG 2: at least 4.5."""
    measure = """(() => {
      const channels = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
      const light = (rgb) => rgb.map((v) => v / 255)
        .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const behind = (node) => {
        for (; node; node = node.parentElement) {
          const colour = getComputedStyle(node).backgroundColor;
          if (!/, 0\\)|transparent|color\\(/.test(colour)) return channels(colour);
        }
        return [255, 255, 255];
      };
      const wanted = 'p, td, th, small, dt, dd, b, .badge, summary, h1, h2, h3, h4, caption, '
        + 'button:not(.modebar-btn)';
      const low = Array.from(document.querySelectorAll(wanted)).map((node) => {
        const [a, b] = [light(channels(getComputedStyle(node).color)), light(behind(node))];
        return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.outerHTML.slice(0, 80)];
      });
      return low.filter(([contrast]) => contrast < 4.5).slice(0, 5);
    })()"""
    paper = "getComputedStyle(document.body).backgroundColor"
    seen = {}
    for scheme in ("light", "dark"):
        browser.prefer(scheme)
        seen[scheme] = browser.run(paper)
        assert browser.run(measure) == [], scheme
    assert seen["light"] != seen["dark"]
    assert browser.logged == []


def test_no_text_is_tiny(browser: Browser) -> None:
    sizes = browser.run(
        "Array.from(document.querySelectorAll('main *')).filter(node => node.innerText)"
        ".map(node => parseFloat(getComputedStyle(node).fontSize))"
    )
    assert min(sizes) >= 11


def test_it_prints(browser: Browser, tmp_path: Path) -> None:
    browser.prefer("dark")
    browser.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert browser.logged == []
