"""Carrying: what fits the edited space is told as if the search had always been in it; the rest does not count."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from search_toy import OBJECTIVES, REFERENCE, Trials, budget, facts, problem, sit, space

from beats_search.records.errors import CommandError
from beats_search.records.objective import Constraint, Objective
from beats_search.records.outcome import Failed, Finished, Stopped
from beats_search.records.part import Part
from beats_search.records.plan import TrainingPlan
from beats_search.search.carrying import Fit, carry_over
from beats_search.search.domain import domain_of
from beats_search.search.ledger import Ledger
from beats_search.search.reading import RunFacts, read_run
from beats_search.search.study import search
from beats_search.space.fitting import values_of
from beats_search.space.knobs import Block, Range, SearchSpace


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Return the study of a run of 20 trials in the toy space."""
    path = tmp_path / "study.db"
    sit(path, budget(20))
    return path


def _narrow(high: float) -> SearchSpace:
    """Return the toy space with a smaller range of the learning rate."""
    lr = Range(path="training.lr", low=0.001, high=high, log=True)
    whole = space()
    fields = dict(whole.plan.fields)
    training = fields["training"]
    assert isinstance(training, Block)
    narrowed = replace(training, fields=tuple((key, lr if key == "lr" else node) for key, node in training.fields))
    plan = replace(whole.plan, fields=tuple((fields | {"training": narrowed}).items()))
    return replace(whole, plan=plan)


def _fit(edited: SearchSpace) -> Fit:
    return Fit(domain=domain_of(edited), values_of=partial(values_of, edited))


def _changed(**changes: object) -> RunFacts:
    return replace(facts(), space_canonical="edited", **changes)  # type: ignore[arg-type]  # from a dict


def test_what_fits_stays_and_keeps_its_number(study: Path) -> None:
    """Exactly the trials whose rate is in the smaller range are kept, with plans, outcomes and numbers."""
    before = read_run(study).trials
    kept, told = carry_over(study, _changed(), _fit(_narrow(0.05)))
    after = read_run(study).trials
    fits = [trial for trial in before if trial.number == 0 or trial.plan.training.lr <= 0.05]
    assert [(trial.number, trial.plan, trial.outcome) for trial in after] == [
        (trial.number, trial.plan, trial.outcome) for trial in fits
    ]
    assert (kept, told) == (len(fits) - 1, len(before) - 1)
    assert 0 < kept < told
    assert len(read_run(study.with_name("study.previous.db")).trials) == len(before)


def test_the_search_goes_on_in_the_edited_space(study: Path) -> None:
    """New trials keep to the edited space, and nothing that was kept runs again."""
    carry_over(study, _changed(), _fit(_narrow(0.05)))
    known = {trial.plan.fingerprint() for trial in read_run(study).trials}
    trials = Trials()
    asked = replace(problem(trials), domain=domain_of(_narrow(0.05)))
    with Ledger.open(study) as ledger:
        search(asked, ledger, budget(len(known) + 5, "tpe"))
    assert len(trials.plans) == 5
    assert all(plan.training.lr <= 0.05 for plan in trials.plans)
    assert not known & {plan.fingerprint() for plan in trials.plans}


def test_another_reference_runs_anew(study: Path) -> None:
    """Where trial 0 has another plan it is tried again, and the reference point is found again."""
    reference = replace(
        REFERENCE, model=Part(name="toy", settings=(("width", 8),)), training=TrainingPlan(epochs=1, lr=0.05)
    )
    carry_over(study, _changed(reference=reference), _fit(space()))
    assert not read_run(study).reference_point
    trials = Trials()
    with Ledger.open(study) as ledger:
        search(problem(trials), ledger, budget(1))
    assert trials.plans == [reference]
    assert read_run(study).reference_point


def test_what_was_judged_by_other_limits_is_tried_again(study: Path) -> None:
    """With another constraint, finished trials stay and stopped ones are left out: the judgement may be another."""
    looser = Constraint(name="size_kb", sign="<=", bound=1000.0)
    before = read_run(study).trials
    carry_over(study, _changed(constraints=(looser,)), _fit(space()))
    after = read_run(study)
    finished = [trial.number for trial in before if isinstance(trial.outcome, Finished)]
    assert [trial.number for trial, _ in after.finished()] == finished
    assert any(isinstance(trial.outcome, Stopped) for trial in before)
    assert not any(isinstance(trial.outcome, Stopped) for trial in after.trials)
    assert len(after.feasible()) == len(finished)


def test_what_was_never_measured_does_not_fit(study: Path) -> None:
    """With an objective that no trial measured, no finished trial is kept; that a plan fails stays known."""
    energy = (*OBJECTIVES, Objective(name="energy_mj", direction="minimize"))
    failed = [trial.number for trial in read_run(study).trials if isinstance(trial.outcome, Failed)]
    kept, _ = carry_over(study, _changed(objectives=energy), _fit(space()))
    after = [trial.number for trial in read_run(study).trials if trial.number]
    assert after == failed
    assert kept == len(failed) > 0


def test_a_run_of_which_nothing_fits_stays_as_it_is(study: Path) -> None:
    """Where no trial fits, the study is left alone, and the user is told what to do."""
    before = study.read_bytes()
    nothing = Fit(domain=domain_of(space()), values_of=lambda _: None)
    with pytest.raises(CommandError, match=r"no trial of its run fits.*--fresh"):
        carry_over(study, _changed(), nothing)
    assert study.read_bytes() == before
    assert not study.with_suffix(".new").exists()
