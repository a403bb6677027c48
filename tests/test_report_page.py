"""The page as a file: complete, offline, and deaf to what hostile names ask for."""

import errno
import json
import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_runs import beats_run, finished, in_regions, plan, realistic_run, record, run_of

from beats_search.records.errors import CommandError
from beats_search.records.outcome import Failed, Interval, Stopped
from beats_search.records.part import Part
from beats_search.records.run import RunRecord, TrialRecord
from beats_search.report.embedding import content_security_policy, script_json
from beats_search.report.links import Links
from beats_search.report.page import write_page, write_results

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028{{7*7}}"
FAILED = Failed(stage="build", reason="out of memory")
UNKNOWN = Interval(low=math.nan, high=math.nan)
UNSURE = replace(finished(), accuracy_interval=UNKNOWN, latency=replace(finished().latency, interval_ms=UNKNOWN))


class Elements(HTMLParser):
    """Collects the start tags, the scripts, the data by their ids, and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.data: dict[str, str] = {}
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        inside = self.tags[-1] if self.tags else ("", {})
        if self.cdata_elem == "script":
            if inside[1].get("type") != "application/json":
                self.scripts.append(data)
            else:
                name = inside[1].get("id") or ""
                self.data[name] = self.data.get(name, "") + data
        else:
            self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of all elements of a tag."""
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(tmp_path: Path, *runs: RunRecord) -> Elements:
    """Return the page of some runs as elements; the runs' folders are empty."""
    path = tmp_path / "page.html"
    write_page(runs, path, folders=[tmp_path / f"run{number}" for number in range(len(runs))])
    return Elements(path.read_text(encoding="utf-8"))


def hostile_run() -> RunRecord:
    """Return a run in which every text that comes from outside is hostile."""
    drawn = plan(bits=8)
    named = replace(
        drawn,
        model=Part(name=HOSTILE, settings=((HOSTILE, HOSTILE),)),
        compression=(Part(name=HOSTILE), *drawn.compression),
    )
    outcome = replace(finished(as_=HOSTILE), sha256=HOSTILE)
    run = run_of(
        record(0, finished(0.99, 0.4), named),
        in_regions(record(1, outcome, named), names=(HOSTILE, "head")),
        replace(record(2, Failed(stage=HOSTILE, reason=HOSTILE, detail=HOSTILE), named), params={HOSTILE: HOSTILE}),
        record(3, Stopped(epoch=1, reason=HOSTILE, curve=()), named),
        name=HOSTILE,
    )
    return replace(run, sampler=HOSTILE, environment={HOSTILE: HOSTILE}, classes=(HOSTILE,))


@pytest.mark.parametrize(
    "trials",
    [
        (),
        (record(0, FAILED),),
        (record(0, finished()),),
        (record(0, FAILED), record(1, finished())),
        (record(0, Stopped(epoch=1, reason="slow", curve=())), record(1, FAILED)),
        (record(0, finished(size_kb=900.0)),),
        (record(0, UNSURE), record(1, UNSURE)),
    ],
    ids=[
        "no trial",
        "reference failed",
        "reference only",
        "one point without reference",
        "none finished",
        "no front",
        "no intervals",
    ],
)
def test_partial_runs_have_a_page(tmp_path: Path, trials: tuple[TrialRecord, ...]) -> None:
    """A run that has hardly begun, or went wrong, is shown with what there is."""
    page = page_of(tmp_path, replace(run_of(), trials=trials))
    assert "How this was measured" in page.text


@pytest.mark.parametrize("point", [{}, {"accuracy": 0.1, "latency_ms": float("nan")}], ids=["missing", "nan"])
def test_a_run_without_reference_point_has_a_page(tmp_path: Path, point: dict[str, float]) -> None:
    """Where no hypervolume can be taken, the page has no growth curve and is there all the same."""
    page = page_of(tmp_path, replace(realistic_run(), reference_point=point))
    assert "Every trial" in page.text
    assert "How the front grew" not in page.text


def test_every_trial_is_on_the_page(tmp_path: Path) -> None:
    """Each trial has its row, with its reason where it did not finish and its traceback folded away."""
    run = realistic_run()
    page = page_of(tmp_path, run)
    rows = {attributes.get("id") for attributes in page.of("tr")}
    assert {f"run-1-trial-{trial.number}" for trial in run.trials} <= rows
    assert "in train: the loss is not finite at epoch 2, lr 0.2" in page.text
    failed = [trial for trial in run.trials if isinstance(trial.outcome, Failed)]
    assert len(page.of("details")) == len(failed)


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    """No name, reason, traceback or setting becomes an element, an attribute or a script of the page."""
    tame = page_of(tmp_path, replace(hostile_run(), name="tame"))
    page = page_of(tmp_path, hostile_run())
    assert len(page.of("script")) == len(tame.of("script"))
    assert page.of("img") == []
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert HOSTILE in page.text


def test_a_hostile_name_of_a_region_is_a_text_to_plotly_too(tmp_path: Path) -> None:
    """Plotly reads tags in labels, so a region's name is sent with its tags spelled out."""
    page = page_of(tmp_path, hostile_run())
    (trial, *_) = json.loads(page.data["run-1-regions-trials"])
    assert len(trial["names"]) == 2
    assert not any("<" in text for key in ("names", "ticks", "narrow_ticks") for text in trial[key])
    assert trial["names"][0].startswith("&lt;/script&gt;")


def test_updates_by_region_are_shown_where_they_were_told(tmp_path: Path) -> None:
    """The section is there for a run whose trials tell of their regions, and for no other."""
    title = "How often was each region updated?"
    page = page_of(tmp_path, realistic_run(), beats_run())
    assert page.text.count(title) == 1
    assert [box["id"] for box in page.of("select")] == ["run-2-regions-choice"]


def test_a_long_fact_breaks_at_its_underscores(tmp_path: Path) -> None:
    """A sampler's name may break after an underscore, and a hostile one is still a text."""
    page = page_of(tmp_path, replace(realistic_run(), sampler=f"random_search{HOSTILE}"))
    assert len(page.of("wbr")) == 1
    assert f"random_search{HOSTILE}" in page.text
    assert page.of("img") == []


def test_many_regions_of_many_trials_leave_the_page_light(tmp_path: Path) -> None:
    """Trials of 100 epochs and 8 regions, 80 of them, add less than half a megabyte."""
    names = tuple(f"backbone.layer{number}" for number in range(8))
    run = beats_run(trials=80, names=names, epochs=100)
    page = page_of(tmp_path, run)
    assert len(page.data["run-1-regions-trials"]) < 500_000
    assert (tmp_path / "page.html").stat().st_size < 6_000_000


def test_the_page_runs_its_own_two_scripts_only(tmp_path: Path) -> None:
    """The policy names exactly the scripts of the page by their digests and allows nothing from outside."""
    page = page_of(tmp_path, hostile_run())
    (policy,) = [meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    scripts = ["".join(script) for script in page.scripts]
    assert len(scripts) == 2
    assert policy == content_security_policy(scripts)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")


def test_the_page_refers_to_nothing_outside(tmp_path: Path) -> None:
    """No element of the page names a file or a host to load from."""
    page = page_of(tmp_path, realistic_run())
    sources = [attributes for _, attributes in page.tags if "src" in attributes]
    assert sources == []
    assert [link["href"] for link in page.of("link")] == ["data:,"]


def test_the_page_is_small_enough_to_send(tmp_path: Path) -> None:
    """A page holds plotly once and is below 6 MB, for several runs too."""
    path = tmp_path / "page.html"
    write_page([realistic_run(seed) for seed in range(3)], path, folders=[tmp_path] * 3)
    assert path.stat().st_size < 6_000_000


def test_models_are_linked_where_they_exist(tmp_path: Path) -> None:
    """A link leads from the page to an existing file, whatever the folder is called; no file, no link."""
    run = realistic_run()
    folder = tmp_path / "my #1 run?"
    model = folder / "models" / "0" / "model.onnx"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"model")
    page_path = tmp_path / "pages" / "report.html"
    page_path.parent.mkdir()
    write_page([run], page_path, folders=[folder])
    links = [a["href"] for a in Elements(page_path.read_text(encoding="utf-8")).of("a") if a.get("class") == "model"]
    assert [(page_path.parent / unquote(link or "")).resolve() for link in links] == [model.resolve()]


def test_several_runs_are_compared_on_one_page(tmp_path: Path) -> None:
    """A page of two runs has a section for each and a table that links to them."""
    page = page_of(tmp_path, realistic_run(1, name="one"), realistic_run(2, name="two"))
    assert [attributes["id"] for attributes in page.of("article")] == ["run-1", "run-2"]
    assert "2 runs compared" in page.text
    assert {"#run-1", "#run-2"} <= {attributes["href"] for attributes in page.of("a")}


def test_ids_on_a_page_are_unique(tmp_path: Path) -> None:
    """No two elements share an id, for several runs too."""
    page = page_of(tmp_path, realistic_run(1), realistic_run(2))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_a_page_needs_a_run_and_a_folder_each(tmp_path: Path) -> None:
    """Runs and folders come in pairs, at least one."""
    with pytest.raises(CommandError, match="at least one run, each with its folder, got 1 and 0"):
        write_page([run_of()], tmp_path / "page.html", folders=[])


def test_results_are_all_the_files_of_a_run(tmp_path: Path) -> None:
    """A run leaves its front, its trials, its page and a card beside each model that exists, and nothing aside."""
    run = realistic_run()
    (tmp_path / "models" / "0").mkdir(parents=True)
    write_results(run, tmp_path)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["front.json", "models/0/card.json", "report.html", "trials.csv"]
    assert json.loads((tmp_path / "front.json").read_text(encoding="utf-8"))["name"] == "digits"


def test_results_can_be_written_again(tmp_path: Path) -> None:
    """Writing the same run twice leaves the same bytes."""
    write_results(realistic_run(), tmp_path)
    first = (tmp_path / "report.html").read_bytes()
    write_results(realistic_run(), tmp_path)
    assert (tmp_path / "report.html").read_bytes() == first


def test_a_failed_write_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk refuses the new page, the old one is still whole and nothing is left aside."""
    path = tmp_path / "report.html"
    path.write_text("old", encoding="utf-8")

    def refuse(_: Path, __: Path) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match=r"no space.*report\.html"):
        write_page([run_of()], path, folders=[tmp_path])
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_texts_that_are_no_unicode_do_not_stop_the_page(tmp_path: Path) -> None:
    """A traceback with a lone surrogate is written with a replacement."""
    page = page_of(tmp_path, run_of(record(0, Failed(stage="load", reason="bad \udcff byte"))))
    assert "bad ? byte" in page.text


@given(st.text())
def test_embedded_json_cannot_leave_its_script(text: str) -> None:
    """Whatever a text holds, its JSON reads back and has nothing in it that HTML reads."""
    embedded = script_json(json.dumps({"name": text}, ensure_ascii=False))
    assert json.loads(embedded) == {"name": text}
    assert not set(embedded) & set("<>&\u2028\u2029")


def test_commands_survive_a_shell(tmp_path: Path) -> None:
    """A folder with a space is quoted, and one that starts with a dash is no option."""
    run = run_of(name="-rf my run")
    links = Links(folder=Path("-my run"), page=tmp_path / "page.html")
    assert links.export(run, 3) == "beats-search export './-my run' 3 --to './-rf my run-3'"
