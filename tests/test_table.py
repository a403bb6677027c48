"""Tables: what is done to raw rows first is what pandas would do, and travels in the exported file."""

import gzip
import io
import json
import runpy
import sqlite3
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from report_runs import finished, plan, record, run_of
from search_toy import facts
from test_csv import COLOURS, load, table
from torch import Tensor, fx, nn

from beats_search.compression.channel_pruning import ChannelPruning
from beats_search.compression.quantization import Quantization
from beats_search.measuring.quality import accuracy, check_parity
from beats_search.models.mlp import Mlp
from beats_search.records.column import Column
from beats_search.records.outcome import Finished
from beats_search.records.part import Part
from beats_search.records.plan import TrainingPlan, TrialPlan
from beats_search.report.cards import card
from beats_search.report.script import run_script
from beats_search.runtimes.onnxruntime import OnnxRuntime
from beats_search.search.ledger import Ledger
from beats_search.search.reading import read_facts
from beats_search.tensors.data import DataBundle, Split
from beats_search.tensors.fake_quant import ActivationQuantizer, QuantizedLinear
from beats_search.tensors.network import with_preprocess
from beats_search.tensors.seams import Bench
from beats_search.tensors.table import NumberScale, TablePreprocess, table_preprocess
from beats_search.training.fit import fit
from beats_search.trial.recipe import build_model, data_facts

COLUMNS = (
    Column(name="size", kind="number"),
    Column(name="colour", kind="category", categories=("blue", "green", "red")),
    Column(name="age", kind="number"),
)
NAN = float("nan")
ODD_ROWS = torch.tensor([[NAN, -1.0, NAN], [NAN, 2.0, 3.0], [1e3, 7.0, -1e3], [0.5, NAN, 1.0], [4.0, 1.0, NAN]])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataBundle:
    """Return a table in which the class follows from the columns, with gaps."""
    frame = table(300)
    frame["kind"] = np.where((frame["age"] > 22) ^ (frame["colour"] == "red"), "b", "a")
    return load(tmp_path_factory.mktemp("table"), frame, squares=True)


@pytest.fixture(scope="module")
def model(data: DataBundle) -> nn.Module:
    """Return a trained network behind the table's preprocessing."""
    torch.manual_seed(0)
    network = with_preprocess(data.preprocess, Mlp(width=32, depth=2).build(data.network_shape, 2))
    return fit(network, data, TrainingPlan(epochs=20, batch_size=16, lr=0.01), seed=0).model


def untrained(model: nn.Module, *_: object, **__: object) -> nn.Module:
    """Stand in for fine-tuning."""
    return model


def test_features_are_those_of_pandas(data: DataBundle) -> None:
    """Medians for gaps, (x - mean) / std, squares of that, and one-hot categories, as pandas computes them."""
    raw = pd.DataFrame(data.train.inputs.numpy(), columns=["size", "colour", "age"]).astype("float64")
    numbers = raw[["size", "age"]].fillna(raw[["size", "age"]].median())
    scaled = (numbers - numbers.mean()) / numbers.std()
    known = pd.Categorical.from_codes(raw["colour"].astype(int).tolist(), categories=pd.Index([0, 1, 2]))
    expected = np.hstack([scaled, scaled**2, pd.get_dummies(known).to_numpy(dtype=float)])
    np.testing.assert_allclose(data.preprocess(data.train.inputs).numpy(), expected, atol=1e-5)


def test_without_scaling_numbers_stay_as_they_are() -> None:
    """`standardize: false` fills gaps with the median of what is known, and changes nothing else."""
    rows = torch.tensor([[1.0], [NAN], [2.0], [7.0], [100.0]])
    preprocess = table_preprocess(rows, COLUMNS[:1], standardize=False, squares=False)
    assert preprocess(rows).flatten().tolist() == [1.0, 4.5, 2.0, 7.0, 100.0]


def test_a_constant_column_is_not_scaled() -> None:
    """A number that is the same in all training rows becomes 0, and another one stays within bounds."""
    preprocess = table_preprocess(torch.full((5, 1), 0.1), COLUMNS[:1], standardize=True, squares=False)
    assert preprocess(torch.tensor([[0.1], [2.1]])).flatten().tolist() == pytest.approx([0.0, 2.0])


def test_an_unknown_code_is_a_category_of_its_own() -> None:
    """-1, NaN and a code that there is not all become zeros only, unlike any known category."""
    preprocess = table_preprocess(torch.tensor([[0.0], [1.0]]), COLUMNS[1:2], standardize=True, squares=True)
    codes = torch.tensor([[-1.0], [NAN], [3.0], [1.0]])
    assert preprocess(codes).tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_a_scale_per_number_column_is_asked_for() -> None:
    """Scales that do not fit the columns are refused."""
    with pytest.raises(ValueError, match="a scale per number column, got 1 for 2"):
        TablePreprocess(COLUMNS, [NumberScale(fill=0.0)], squares=False)


def test_a_table_can_be_learned_from(data: DataBundle, model: nn.Module) -> None:
    """Training on raw rows with gaps reaches far more than guessing, on rows it has not seen."""
    with torch.inference_mode():
        assert accuracy(model(data.test.inputs), data.test.labels) > 0.8


def test_a_network_is_built_for_the_features(data: DataBundle, tmp_path: Path) -> None:
    """The family is told the shape behind the preprocessing; the model takes raw rows."""
    file = tmp_path / "table.csv"
    table().to_csv(file, index=False)
    settings = (("path", str(file)), ("target", "kind"))
    plan = TrialPlan(
        dataset=Part(name="csv", settings=settings), model=Part(name="mlp"), training=TrainingPlan(epochs=1)
    )
    assert (data.input_shape, data.network_shape) == ((3,), (7,))
    assert build_model(plan, data)(ODD_ROWS).shape == (5, 2)
    assert data_facts(plan.dataset).columns == COLUMNS


def file_logits(model: nn.Module, path: Path, rows: Tensor) -> Tensor:
    """Return the logits of the exported model."""
    return OnnxRuntime().deploy(model, torch.zeros(1, 3), path).logits(rows)


def test_the_file_takes_raw_rows(data: DataBundle, model: nn.Module, tmp_path: Path) -> None:
    """Gaps and unknown codes give the same logits in the exported file as in torch, in batches of any size."""
    for rows in (ODD_ROWS, ODD_ROWS[:1], data.test.inputs):
        with torch.inference_mode():
            expected = model(rows)
        torch.testing.assert_close(file_logits(model, tmp_path / "model.onnx", rows), expected, rtol=1e-4, atol=1e-4)


def test_integer_layers_begin_behind_the_preprocessing(data: DataBundle, model: nn.Module, tmp_path: Path) -> None:
    """At 8 bits all layers are integer layers, the first grid is on finished features, and the file decides alike."""
    quantized = Quantization(bits=8).apply(model, Bench(data=data, fine_tune=untrained, seed=0))
    assert isinstance(quantized, fx.GraphModule)
    steps = [quantized.get_submodule(str(node.target)) for node in quantized.graph.nodes if node.op == "call_module"]
    layers = [step for step in steps if isinstance(step, ActivationQuantizer | QuantizedLinear)]
    assert sum(isinstance(layer, QuantizedLinear) for layer in layers) == 3
    assert isinstance(layers[0], ActivationQuantizer)
    before = next(node for node in quantized.graph.nodes if node.op == "call_module")
    assert any(node.target is torch.cat for node in before.all_input_nodes)
    engine = OnnxRuntime().deploy(quantized, torch.zeros(1, 3), tmp_path / "model.onnx")
    assert engine.executed_as == "int8"
    rows = torch.cat([data.validation.inputs, ODD_ROWS])
    with torch.inference_mode():
        check_parity(engine.logits(rows), quantized(rows), exact=False)


def test_channels_of_a_table_s_network_can_be_removed(data: DataBundle, model: nn.Module, tmp_path: Path) -> None:
    """Pruning narrows the hidden layers, leaves the preprocessing, and the result is exported."""
    pruned = ChannelPruning(ratio=0.5, round_to=8).apply(model, Bench(data=data, fine_tune=untrained, seed=0))
    assert [layer.out_features for layer in pruned.modules() if isinstance(layer, nn.Linear)] == [16, 16, 2]
    assert torch.equal(pruned[0](ODD_ROWS), data.preprocess(ODD_ROWS))  # type: ignore[index]  # a Sequential
    with torch.inference_mode():
        torch.testing.assert_close(file_logits(pruned, tmp_path / "model.onnx", ODD_ROWS), pruned(ODD_ROWS))


@pytest.mark.parametrize(
    ("rows", "rule"),
    [
        (torch.tensor([[1.0, 0.0]]), r"3 columns need inputs \(n, columns\), got \(2,\)"),
        (torch.tensor([[1.0, NAN, 1.0]]), "finite numbers"),
        (torch.tensor([[float("inf"), 0.0, 1.0]]), "finite numbers"),
    ],
)
def test_only_a_number_of_a_table_may_be_missing(rows: Tensor, rule: str) -> None:
    """A code is never NaN, no number is infinite, and there is a column for every input."""
    split = Split(inputs=rows, labels=torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match=rule):
        DataBundle(train=split, validation=split, test=split, classes=("a", "b"), columns=COLUMNS)


@pytest.mark.parametrize(("kind", "categories"), [("number", ("a",)), ("category", ())])
def test_a_column_has_categories_or_numbers(kind: str, categories: tuple[str, ...]) -> None:
    """A column that is neither or both is refused."""
    with pytest.raises(ValueError, match="a category column has categories and a number column has none"):
        Column(name="x", kind=kind, categories=categories)  # type: ignore[arg-type]  # a text of the test


def test_a_card_lists_columns_with_their_codes() -> None:
    """The card says of each input what it is called, and which number stands for which text."""
    run = replace(run_of(record(0, finished())), input_shape=(3,), columns=COLUMNS)
    trial, outcome = run.finished()[0]
    assert isinstance(outcome, Finished)
    assert json.loads(json.dumps(card(run, trial, outcome)["input"])) == {
        "name": "input",
        "type": "float32",
        "shape": ["batch", 3],
        "missing_words": ["?", "NA", "N/A", "n/a", "<NA>", "NaN", "nan", "NULL", "null", "None"],
        "columns": [
            {"name": "size", "kind": "number"},
            {"name": "colour", "kind": "category", "codes": {"blue": 0, "green": 1, "red": 2}},
            {"name": "age", "kind": "number"},
        ],
    }


def test_columns_are_kept_with_a_run(tmp_path: Path) -> None:
    """A study remembers the columns of its table; one that was written without them has none."""
    path = tmp_path / "study.db"
    Ledger.create(path, replace(facts(), columns=COLUMNS)).close()
    assert read_facts(path).columns == COLUMNS
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM study_user_attributes WHERE key = 'columns'")
    database.close()
    assert read_facts(path) == facts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a script wrote, and the code that it ended with."""

    stdout: io.StringIO = field(default_factory=io.StringIO)
    stderr: io.StringIO = field(default_factory=io.StringIO)
    code: str | int | None = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A folder with an exported model of a table, its card and its script."""

    folder: Path
    columns: tuple[Column, ...]
    classes: tuple[str, ...]

    def run(self, content: str | bytes | None) -> Ran:
        """Run the script on a file of this content; None: on no file that there is."""
        rows, ran = self.folder / "rows.csv", Ran()
        rows.unlink(missing_ok=True)
        if content is not None:
            rows.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(ran.stdout), redirect_stderr(ran.stderr):
            patch.setattr(sys, "argv", ["run.py", str(rows)])
            try:
                runpy.run_path(str(self.folder / "run.py"))
            except SystemExit as ended:
                return replace(ran, code=ended.code)
        return ran

    def says(self, *rows: list[float]) -> str:
        """Return what the script should print for these inputs of the model."""
        session = onnxruntime.InferenceSession(self.folder / "model.onnx")
        logits = session.run(None, {"input": np.array(rows, dtype=np.float32)})[0]
        return str([self.classes[row.argmax()] for row in logits])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return an export whose columns include one without a name, and `-` and NA for what is missing."""
    folder = tmp_path_factory.mktemp("exported")
    words = ("NA", "-")
    text = "".join(f"{at},{COLOURS[at % 3]},{at % 7},{'ab'[at % 2]}\n" for at in range(60))
    data = load(folder, f",colour,age,kind\n{text}", missing_words=words)
    torch.manual_seed(0)
    model = with_preprocess(data.preprocess, Mlp(width=8, depth=1).build(data.network_shape, 2)).eval()
    dataset = Part(name="csv", settings=(("missing_words", words), ("separator", ",")))
    trial = record(0, finished(), replace(plan(), dataset=dataset))
    run = replace(run_of(trial), input_shape=(3,), columns=data.columns, classes=data.classes)
    OnnxRuntime().deploy(model, torch.zeros(1, 3), folder / "model.onnx")
    (folder / "card.json").write_text(json.dumps(dict(card(run, *run.finished()[0]))))
    (folder / "run.py").write_text(run_script(run))
    return Exported(folder=folder, columns=data.columns, classes=data.classes)


TIDY = ",age,colour\n" + "".join(f"{at},{at % 7},{COLOURS[at % 3]}\n" for at in range(0, 60, 5))
MEANT = tuple([float(at), {"red": 2.0, "green": 1.0, "blue": 0.0}[COLOURS[at % 3]], at % 7] for at in range(0, 60, 5))


@pytest.mark.parametrize(
    "content",
    [
        TIDY,
        TIDY.replace(",", " , "),
        "\ufeff\n" + TIDY.replace("\n", "\r\n\r\n"),
        TIDY.replace("\n", "\r"),
        gzip.compress(TIDY.encode(), mtime=0),
    ],
    ids=["tidy", "blanks", "lines", "returns", "packed"],
)
def test_the_script_reads_a_file_as_training_does(exported: Exported, content: str | bytes) -> None:
    """Blanks around names and values, blank lines, other line ends and gzip change no answer; no name is a number."""
    ran = exported.run(content)
    assert (ran.stderr.getvalue(), ran.code) == ("", 0)
    assert ran.stdout.getvalue().strip() == exported.says(*MEANT)


def test_the_script_takes_gaps_as_training_does(exported: Exported) -> None:
    """Empty fields and the run's own words are missing, in numbers and in texts; other texts are unknown."""
    ran = exported.run("column 1,age,colour\n-,NA,-\n,,\n1e1,2,pink\n")
    assert (ran.stderr.getvalue(), ran.code) == ("", 0)
    assert ran.stdout.getvalue().strip() == exported.says([NAN, -1, NAN], [NAN, -1, NAN], [10, -1, 2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        (None, "No such file"),
        (",age,colour\n", "no row below the header"),
        (",age\n1,2\n", "the header needs the column 'colour' once, got 'column 1', 'age'"),
        (",age,age,colour\n1,2,3,red\n", "the header needs the column 'age' once"),
        (TIDY.replace(",", ";"), "once, got ';age;colour'; is it separated by ','?"),
        (TIDY + "1,2\n", "line 14 has 2 fields, and the header has 3"),
        (TIDY + "1,2,red,4\n", "line 14 has 4 fields, and the header has 3"),
        (TIDY + '"1,5",2,red\n', "line 14: column 'column 1' needs a number like 1234.5, or nothing, got '1,5'"),
        *((TIDY + f"{odd},2,red\n", f"got '{odd}'") for odd in ("inf", "1e39", "1_0", "nan", "?", "१")),
        (TIDY + '1,2,"red\n', "unexpected end of data"),
        (TIDY.encode("utf-16"), "save it as UTF-8"),
        (gzip.compress(TIDY.encode(), mtime=0)[:-12], "end-of-stream"),
    ],
)
def test_the_script_refuses_what_is_no_such_table(
    exported: Exported, content: str | bytes | None, message: str
) -> None:
    """A file that does not fit ends in one line on stderr that names it, and exit code 2."""
    ran = exported.run(content)
    assert (ran.stdout.getvalue(), ran.code) == ("", 2)
    assert message in ran.stderr.getvalue()
    assert "rows.csv" in ran.stderr.getvalue()
    assert len(ran.stderr.getvalue().splitlines()) == 1


@pytest.mark.parametrize(
    "text", ["1_0", "0x1F", "inf", "NAN", "१", "1e5", "+3", ".5", "5.", "True", "1,5", "1d5", "1 0"]
)
def test_the_script_and_training_agree_on_what_a_number_is(exported: Exported, text: str) -> None:
    """The script takes as a number exactly what makes a column of numbers in training."""
    table_of_it = "x,kind\n" + f'"{text}",a\n7,b\n' * 6
    try:
        trained = load(exported.folder, table_of_it).columns[0].kind == "number"
    except ValueError:
        trained = False
    assert (exported.run(f',age,colour\n"{text}",2,red\n').code == 0) == trained


def test_the_script_of_a_table_reads_a_csv_file(data: DataBundle, model: nn.Module, tmp_path: Path) -> None:
    """Run on a CSV file, gaps and unknown texts in it, the script names the classes that the model would."""
    run = replace(run_of(record(0, finished())), input_shape=(3,), columns=data.columns, classes=data.classes)
    trial, outcome = run.finished()[0]
    OnnxRuntime().deploy(model, torch.zeros(1, 3), tmp_path / "model.onnx")
    (tmp_path / "card.json").write_text(json.dumps(dict(card(run, trial, outcome))))
    (tmp_path / "run.py").write_text(run_script(run))
    (tmp_path / "rows.csv").write_text("age,more,size,colour\n3,x,NA,red\n40,x,5.5,pink\n,x,,\n")
    ran = subprocess.run(
        [sys.executable, "run.py", "rows.csv"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    meant = np.array([[NAN, 2, 3], [5.5, -1, 40], [NAN, -1, NAN]], dtype=np.float32)
    logits = session.run(None, {"input": meant})[0]
    assert ran.stdout.strip() == str([data.classes[row.argmax()] for row in logits])
