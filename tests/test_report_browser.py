"""The page in a real browser: hover, links, budget, sorting; no errors and no requests."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest
from report_runs import REGIONS, beats_run, plan, realistic_run
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from beats_search.pareto import front_of_run
from beats_search.records.part import Part
from beats_search.records.run import RunRecord
from beats_search.report.answer import answer
from beats_search.report.page import write_results
from beats_search.report.words import plan_in_words

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMEDRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1600",
)
SECONDS = 15
RANGE = 'return document.querySelector(".figure.pareto")._fullLayout.yaxis.range'
SHARES = 'return document.querySelector(".figure.regions").data[0].z'
OWN = ("data:", "blob:", "chrome:")  # what never leaves the browser; `chrome:` are its own first tabs
SCRIPT = "<img src=x onerror='window.pwned = 1'>"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None or CHROMEDRIVER is None, reason="needs Chromium and chromedriver on the path"),
]


def hostile(run: RunRecord) -> RunRecord:
    """Return a run whose second trial bears the name of a script, as one of its regions does."""
    first, second, *rest = run.trials
    named = replace(plan(bits=8), model=Part(name=SCRIPT))
    return replace(run, name=f"digits {SCRIPT}", trials=(first, replace(second, plan=named), *rest))


@pytest.fixture(scope="module")
def run() -> RunRecord:
    """Return the run that the page shows."""
    return hostile(beats_run(names=(*REGIONS, SCRIPT)))


@pytest.fixture(scope="module")
def page(run: RunRecord, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of the run, with a model for each of its finished trials."""
    folder = tmp_path_factory.mktemp("a run")
    for trial, _ in run.finished():
        model = folder / "models" / str(trial.number) / "model.onnx"
        model.parent.mkdir(parents=True)
        model.write_bytes(b"model")
    write_results(run, folder)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Yield a browser that shows the page."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(executable_path=str(CHROMEDRIVER)))
    try:
        driver.get(page.as_uri())
        WebDriverWait(driver, SECONDS).until(lambda it: it.find_elements(By.CSS_SELECTOR, ".pareto .point"))
        yield driver
    finally:
        driver.quit()


def place_of(browser: webdriver.Chrome, trial: int) -> tuple[int, int]:
    """Return where on the screen the point of a trial is drawn."""
    found: list[float] = browser.execute_script(
        """
        const plot = document.querySelector(".figure.pareto");
        plot.scrollIntoView({block: "center", behavior: "instant"});
        const traces = plot.data.filter((trace) => trace.customdata && trace.customdata.includes(arguments[0]));
        const index = traces[0].customdata.indexOf(arguments[0]);
        const {xaxis, yaxis} = plot._fullLayout;
        const box = plot.getBoundingClientRect();
        return [
          box.x + xaxis._offset + xaxis.d2p(traces[0].x[index]),
          box.y + yaxis._offset + yaxis.d2p(traces[0].y[index]),
        ];
        """,
        trial,
    )
    return round(found[0]), round(found[1])


def hover(browser: webdriver.Chrome, trial: int) -> WebElement:
    """Move the mouse to the point of a trial, as a person does, and return the label that appears."""
    x, y = place_of(browser, trial)
    for left, top in ((x + 5, y + 60), (x, y)):
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": left, "y": top})
    wait = WebDriverWait(browser, SECONDS)
    return wait.until(lambda it: it.find_element(By.CSS_SELECTOR, ".pareto .hoverlayer .hovertext"))


def click(browser: webdriver.Chrome, trial: int) -> None:
    """Click on the point of a trial once its label is there."""
    hover(browser, trial)
    click_at(browser, *place_of(browser, trial))


def click_at(browser: webdriver.Chrome, x: int, y: int) -> None:
    """Click at a place on the screen."""
    for kind in ("mousePressed", "mouseReleased"):
        event = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1}
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", event)


def test_hovering_a_point_tells_its_plan(browser: webdriver.Chrome, run: RunRecord) -> None:
    """The text over the point of the headline's trial names the trial and its plan in words."""
    number = answer(run).trial
    assert number is not None
    label = hover(browser, number)
    words = plan_in_words(next(trial.plan for trial in run.trials if trial.number == number))
    spoken = "".join((label.get_attribute("textContent") or "").split())
    assert f"Trial{number}" in spoken
    assert "".join(words.split()) in spoken


def test_clicking_a_point_leads_to_its_row(browser: webdriver.Chrome, run: RunRecord) -> None:
    """A click marks the row of the trial in the table of the front and brings it on the screen."""
    number = answer(run).trial
    assert number is not None
    click(browser, number)
    row = WebDriverWait(browser, SECONDS).until(lambda it: it.find_element(By.CSS_SELECTOR, "tr.named"))
    assert row.get_attribute("id") == f"run-1-front-{number}"


def test_links_lead_to_the_models(browser: webdriver.Chrome, page: Path) -> None:
    """Every link to a model resolves, from the page, to a file that exists."""
    links = browser.find_elements(By.CSS_SELECTOR, "a.model")
    files = [Path(unquote(urlparse(str(link.get_property("href"))).path)) for link in links]
    assert files
    assert all(file.is_file() and file.is_relative_to(page.parent) for file in files)


def test_a_budget_picks_the_best_that_fits(browser: webdriver.Chrome, run: RunRecord) -> None:
    """For a limit on latency the page names the most accurate trial within it and the command to export it."""
    limit = 0.06
    fitting = [
        (outcome.accuracy, trial.number) for trial, outcome in run.finished() if outcome.latency.median_ms <= limit
    ]
    _, best = max(fitting)
    picked = browser.execute_script(
        """
        const budget = document.querySelector('.budget[data-name="latency_ms"]');
        const field = budget.querySelector('input[type="number"]');
        field.value = arguments[0];
        field.dispatchEvent(new Event("input"));
        return [budget.querySelector(".pick").textContent, budget.querySelector("code").textContent];
        """,
        limit,
    )
    assert f"is trial {best}:" in picked[0]
    assert f" {best} --to " in picked[1]
    assert browser.find_elements(By.CSS_SELECTOR, f"#run-1-front-{best}.picked")


def test_a_budget_that_nothing_fits_says_so(browser: webdriver.Chrome) -> None:
    """A limit below the fastest model has no answer and no command."""
    field = browser.find_element(By.CSS_SELECTOR, '.budget[data-name="latency_ms"] input[type="number"]')
    field.clear()
    field.send_keys("0.000001")
    budget = browser.find_element(By.CSS_SELECTOR, '.budget[data-name="latency_ms"]')
    assert budget.find_element(By.CSS_SELECTOR, ".pick").text == "No model on the front fits."
    assert not budget.find_element(By.CSS_SELECTOR, ".command").is_displayed()


def test_another_trial_can_be_shown_by_its_regions(browser: webdriver.Chrome, run: RunRecord) -> None:
    """Choosing a trial draws the shares of its own updates, says its own counts, and outlasts a change of colours."""
    before = browser.execute_script(SHARES), _facts(browser), _told(browser, "rule")
    box = Select(browser.find_element(By.CSS_SELECTOR, "#run-1-regions-choice"))
    label = box.options[2].text
    box.select_by_index(2)
    chosen = next(outcome for trial, outcome in run.finished() if label.startswith(f"Trial {trial.number} "))
    shares = [[score.regions[row].fires / score.micro_batches for score in chosen.curve] for row in range(6)]
    updates = sum(score.updates for score in chosen.curve)
    for scheme in ("light", "dark", "light"):
        _front_color(browser, scheme)
        assert browser.execute_script(SHARES) == [pytest.approx(row) for row in shares]
    assert f"Optimizer steps\n{updates}" in _facts(browser)
    words = plan_in_words(next(trial.plan for trial, outcome in run.finished() if outcome is chosen))
    assert _told(browser, "plan") == f"Plan: {words}."
    assert f"{before[2]} {_told(browser, 'rule')}".count("it is updated as soon as its agreement reaches") == 2
    assert before[2] != _told(browser, "rule")
    assert before[0] != browser.execute_script(SHARES)
    assert before[1] != _facts(browser)


def test_the_names_of_regions_stand_at_their_rows(browser: webdriver.Chrome) -> None:
    """The rows are labelled in the order of the network, from the top, and a name that is a tag is shown as text."""
    ticks = browser.find_elements(By.CSS_SELECTOR, ".figure.regions .ytick")
    heights = {tick.text: tick.location["y"] for tick in ticks}
    assert tuple(sorted(heights, key=heights.__getitem__))[:-1] == REGIONS
    assert len(heights) == len(REGIONS) + 1
    assert any(name.startswith("<img") for name in heights)


def test_tables_sort_by_a_click_on_a_header(browser: webdriver.Chrome, run: RunRecord) -> None:
    """A click on `Accuracy` sorts all trials by it, those without one last; a second click turns the order."""
    by_accuracy = sorted(run.finished(), key=lambda pair: pair[1].accuracy)
    lowest, highest = by_accuracy[0][0].number, by_accuracy[-1][0].number
    orders = browser.execute_script(
        """
        const table = [...document.querySelectorAll("table.sortable")].at(-1);
        const header = [...table.querySelectorAll("th button")].find((button) => button.textContent === "Accuracy");
        return [1, 2].map(() => { header.click(); return [...table.tBodies[0].rows].map((row) => row.id); });
        """
    )
    assert [order[0] for order in orders] == [f"run-1-trial-{lowest}", f"run-1-trial-{highest}"]
    assert len(orders[0]) == len(run.trials)


def test_a_double_click_shows_what_was_out_of_sight(browser: webdriver.Chrome, run: RunRecord) -> None:
    """After a double click the plot reaches down to the worst trial, and not much further."""
    lowest = min(outcome.accuracy for _, outcome in run.finished())
    x, y = place_of(browser, 0)
    for _ in range(2):
        click_at(browser, x - 40, y + 80)
    low, high = WebDriverWait(browser, SECONDS).until(
        lambda it: (ends := it.execute_script(RANGE))[0] < lowest and ends  # it is animated by a frame or two
    )
    assert (low, high) == pytest.approx((lowest, 1), abs=0.1)


def test_the_page_follows_a_dark_screen(browser: webdriver.Chrome) -> None:
    """When the system turns dark, the front turns to its dark colour."""
    before, after = (_front_color(browser, scheme) for scheme in ("light", "dark"))
    assert (before, after) == ("#0072b2", "#56b4e9")


def test_plots_offer_no_upload(browser: webdriver.Chrome) -> None:
    """Of plotly's buttons there are two, save and reset; the one that sends data to a cloud is not there."""
    titles = {
        button.get_attribute("data-attr") or button.get_attribute("data-title")
        for button in browser.find_elements(By.CSS_SELECTOR, ".modebar-btn")
    }
    assert not any("cloud" in (title or "").lower() for title in titles)
    assert len(browser.find_elements(By.CSS_SELECTOR, ".pareto .modebar-btn")) == 2


def test_nothing_goes_wrong_and_nothing_is_fetched(browser: webdriver.Chrome, page: Path) -> None:
    """The console holds no message, no hostile text ran, and the one request was for the page itself."""
    messages = [json.loads(entry["message"])["message"] for entry in _log(browser, "performance")]
    requested = {_url(message) for message in messages if message["method"] == "Network.requestWillBeSent"}
    assert {url for url in requested if not url.startswith(OWN)} == {page.as_uri()}
    assert _log(browser, "browser") == []
    assert browser.execute_script("return window.pwned === undefined") is True


def test_a_table_shows_some_of_very_many_trials_at_a_time(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """All of them are sorted, and the button shows the next ones."""
    run = realistic_run(trials=1_200)
    write_results(run, tmp_path)
    browser.get((tmp_path / "report.html").as_uri())
    ids = 'return [...document.querySelector("table.sortable:has(.state)").tBodies[0].rows].map((row) => row.id)'
    button = browser.find_element(By.CSS_SELECTOR, ".more button")
    assert browser.execute_script(ids) == [f"run-1-trial-{number}" for number in range(500)]
    header = browser.find_elements(By.XPATH, "//button[text()='Accuracy']")[-1]
    browser.execute_script("arguments[0].click(); arguments[0].click()", header)
    best = sorted(run.finished(), key=lambda pair: -pair[1].accuracy)[:10]
    assert browser.execute_script(ids)[:10] == [f"run-1-trial-{trial.number}" for trial, _ in best]
    for shown in (1_000, 1_200):
        assert button.is_displayed()
        browser.execute_script("arguments[0].click()", button)
        assert len(set(browser.execute_script(ids))) == shown
    assert not button.is_displayed()


def test_a_point_leads_to_a_row_that_waits(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """It comes first in its table, is marked, and counts among those shown; a row of the front leaves the table be."""
    run = realistic_run(trials=600)
    write_results(run, tmp_path)
    browser.get((tmp_path / "report.html").as_uri())
    press = """
        document.querySelector(".figure.pareto").emit("plotly_click", {points: [{customdata: arguments[0]}]});
        const rows = document.querySelector("table.sortable:has(.state)").tBodies[0].rows;
        const [named, more] = [document.querySelector("tr.named"), document.querySelector(".more")];
        return [rows[0].id, rows.length, named.id, more.textContent];
    """
    on_front = [trial.number for trial, _ in front_of_run(run)]
    beaten = next(trial.number for trial, _ in reversed(run.finished()) if trial.number not in on_front)
    assert browser.execute_script(press, on_front[-1])[:3] == ["run-1-trial-0", 500, f"run-1-front-{on_front[-1]}"]
    found = browser.execute_script(press, beaten)
    assert found[:3] == [f"run-1-trial-{beaten}", 501, f"run-1-trial-{beaten}"]
    assert "501 of 600" in found[3]


def _front_color(browser: webdriver.Chrome, scheme: str) -> str:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    color: str = browser.execute_async_script(
        """
        const done = arguments[0];
        const plot = document.querySelector(".figure.pareto");
        requestAnimationFrame(() => requestAnimationFrame(() =>
          done(plot.data.find((trace) => trace.name === "Pareto front").marker.color)));
        """
    )
    return color


def _facts(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.CSS_SELECTOR, "#run-1-regions-facts").text


def _told(browser: webdriver.Chrome, name: str) -> str:
    return browser.find_element(By.CSS_SELECTOR, f'[data-told="{name}"]').text


def _log(browser: webdriver.Chrome, kind: str) -> list[dict[str, str]]:
    entries: list[dict[str, str]] = browser.get_log(kind)  # type: ignore[no-untyped-call]  # selenium's, untyped
    return entries


def _url(message: dict[str, Any]) -> str:
    url: str = message["params"]["request"]["url"]
    return url
