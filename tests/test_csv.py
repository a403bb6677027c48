"""CSV files: rows, columns and classes are what the file says; a mistake is named with file and column."""

import gzip
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from beats_search.datasets._strata import split_by_class
from beats_search.datasets.csv import Csv
from beats_search.records.column import Column
from beats_search.tensors.data import DataBundle

COLOURS = ("red", "green", "blue")


def table(count: int = 60) -> pd.DataFrame:
    """Return rows of two numbers, a text and a class, with gaps in the first number and the text."""
    random = np.random.default_rng(0)
    size = random.normal(5, 2, count).round(3)
    colour = random.choice(COLOURS, count)
    frame = pd.DataFrame({"size": size, "colour": colour, "age": random.integers(1, 90, count) / 2})
    frame["kind"] = np.where(np.arange(count) % 2, "b", "a")
    frame.loc[::7, "size"] = np.nan
    frame.loc[::11, "colour"] = None
    return frame


def load(folder: Path, frame: pd.DataFrame | str, **changes: object) -> DataBundle:
    """Write a table as a file and read it with some settings."""
    file = folder / "table.csv"
    file.write_text(frame if isinstance(frame, str) else frame.to_csv(index=False), encoding="utf-8")
    return Csv(**{"path": str(file), "target": "kind", **changes}).load()  # type: ignore[arg-type]  # settings by name


def rows_of(data: DataBundle) -> list[tuple[float, ...]]:
    """Return all rows of all splits with their labels, sorted, NaN as -99."""
    splits = (data.train, data.validation, data.test)
    joined = torch.cat([torch.cat([split.inputs, split.labels[:, None].float()], dim=1) for split in splits])
    return sorted(map(tuple, joined.nan_to_num(-99).tolist()))


def test_a_column_is_numbers_or_categories(tmp_path: Path) -> None:
    """Columns keep the order of the file; texts are coded in alphabetical order, and the target is no input."""
    data = load(tmp_path, table())
    assert data.columns == (
        Column(name="size", kind="number"),
        Column(name="colour", kind="category", categories=("blue", "green", "red")),
        Column(name="age", kind="number"),
    )
    assert data.classes == ("a", "b")
    assert data.input_shape == (3,)


def test_every_row_is_in_one_split(tmp_path: Path) -> None:
    """All rows of the file are there once, numbers as they are, gaps as NaN and -1."""
    frame = table()
    codes = frame["colour"].map({"blue": 0, "green": 1, "red": 2}).fillna(-1)
    expected = frame.assign(colour=codes, kind=(frame["kind"] == "b").astype(float)).astype("float32").fillna(-99)
    assert rows_of(load(tmp_path, frame)) == sorted(map(tuple, expected.to_numpy().tolist()))


@given(
    labels=st.lists(st.integers(0, 2), min_size=1, max_size=60).map(lambda few: few + [0, 1, 2] * 3),
    validation=st.floats(0.01, 0.5),
    test=st.floats(0.01, 0.49),
    seed=st.integers(0, 5),
)
def test_a_deal_gives_every_split_of_every_class(labels: list[int], validation: float, test: float, seed: int) -> None:
    """The splits share no row and miss none; each class is in all three, in shares that are right to a row."""
    tensor = torch.tensor(labels)
    train, validating, testing = split_by_class(tensor, validation, test, seed)
    assert sorted(torch.cat([train, validating, testing]).tolist()) == list(range(len(labels)))
    for label in range(3):
        count = labels.count(label)
        parts = [int((tensor[part] == label).sum()) for part in (train, validating, testing)]
        assert min(parts) >= 1
        assert abs(parts[2] - max(1, test * count)) <= 1
        assert abs(parts[1] - max(1, validation * count)) <= 1


def test_a_seed_deals_the_same_rows_again(tmp_path: Path) -> None:
    """Equal seeds give equal splits, other seeds other ones."""
    first, again, other = (load(tmp_path, table(), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.test.inputs.nan_to_num(-99), again.test.inputs.nan_to_num(-99))
    assert not torch.equal(first.test.inputs.nan_to_num(-99), other.test.inputs.nan_to_num(-99))


def features(data: DataBundle, rows: Tensor) -> Tensor:
    """Return what the network gets for raw rows."""
    result: Tensor = data.preprocess(rows)
    return result


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15, deadline=None)
@given(number=st.floats(-1e6, 1e6), word=st.sampled_from(["red", "unheard of", None]))
def test_only_training_rows_decide_what_a_row_means(tmp_path: Path, number: float, word: str | None) -> None:
    """Whatever stands in rows that validate or test, categories and preprocessing stay as they are."""
    frame = table()
    _, *others = split_by_class(torch.arange(60) % 2, 0.2, 0.2, seed=0)
    before = load(tmp_path, frame)
    for part in others:
        frame.loc[part.numpy(), ["size", "age"]] = number
        frame.loc[part.numpy(), "colour"] = word
    after = load(tmp_path, frame)
    assert after.columns == before.columns
    assert torch.equal(features(after, before.train.inputs), features(before, before.train.inputs))


@pytest.mark.parametrize(("target", "classes"), [("10", ("2", "9", "10")), ("ten", ("2", "9", "ten"))])
def test_classes_are_sorted_as_what_they_are(tmp_path: Path, target: str, classes: tuple[str, ...]) -> None:
    """Numbers are sorted as numbers and texts after them."""
    rows = "".join(f"{number},{(target, '9', '2')[number % 3]}\n" for number in range(12))
    assert load(tmp_path, f"x,kind\n{rows}").classes == classes


def test_one_number_is_one_class_however_it_is_spelled(tmp_path: Path) -> None:
    """1, 1.0 and 01 are the same class."""
    rows = "".join(f"{number},{('1', '1.0', '01', '2')[number % 4]}\n" for number in range(24))
    data = load(tmp_path, f"x,kind\n{rows}")
    assert data.classes == ("1", "2")
    assert len(data.train) + len(data.validation) + len(data.test) == 24


def test_rows_without_a_target_are_left_out(tmp_path: Path) -> None:
    """A row whose class is missing teaches nothing."""
    frame = table()
    frame.loc[:9, "kind"] = None
    assert len(rows_of(load(tmp_path, frame))) == 50


def test_drop_leaves_incomplete_rows_out(tmp_path: Path) -> None:
    """With `missing: drop` only rows without any gap are used, in all splits."""
    frame = table()
    data = load(tmp_path, frame, missing="drop")
    assert len(rows_of(data)) == len(frame.dropna())
    assert not data.train.inputs.isnan().any()
    assert min(split.inputs[:, 1].min() for split in (data.train, data.validation, data.test)) >= 0


@pytest.mark.parametrize("gap", ["", "?", "NA", "n/a", "nan", "NULL", "None"])
def test_usual_words_for_nothing_are_missing(tmp_path: Path, gap: str) -> None:
    """A number column stays one when a gap is spelled in a usual way."""
    rows = "".join(f"{gap if number == 3 else number}, yes ,{'ab'[number % 2]}\n" for number in range(12))
    data = load(tmp_path, f"x,y,kind\n{rows}")
    assert [column.kind for column in data.columns] == ["number", "category"]
    assert data.columns[1].categories == ("yes",)
    assert sum(row[0] == -99 for row in rows_of(data)) == 1


def test_yes_and_no_of_a_program_are_categories(tmp_path: Path) -> None:
    """True and False are texts, and so is a number among words."""
    rows = "".join(f"{number % 3 == 0},{('1', 'many')[number % 2]},{'ab'[number // 2 % 2]}\n" for number in range(24))
    data = load(tmp_path, f"x,y,kind\n{rows}")
    assert [column.categories for column in data.columns] == [("False", "True"), ("1", "many")]


def test_another_separator_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    """A file as a spreadsheet writes it is the same table."""
    frame, text = table(), table().to_csv(index=False, sep=";")
    assert rows_of(load(tmp_path, f"\ufeff{text}", separator=";")) == rows_of(load(tmp_path, frame))


def rows(values: str, count: int = 12) -> str:
    """Return lines of `values` with a class behind each; `#` stands for the line's number."""
    return "".join(f"{values.replace('#', str(number))},{'ab'[number % 2]}\n" for number in range(count))


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("x,Kind\n" + rows("1"), {}, "has no column 'kind'; did you mean 'Kind'? (x, Kind)"),
        ("x;kind\n1;a\n", {}, "(x;kind); is the separator right?"),
        ("x,kind\n" + rows("1"), {"drop": ("y",)}, "has no column 'y'"),
        ("x,x,kind\n" + rows("1,2"), {}, "columns need different names, got 'x' more than once"),
        ("x,kind\n1,a\n2,a\n3,a\n", {}, "target column 'kind' needs at least 2 classes, got 'a' only"),
        ("x,kind\n" + rows("1") + "1,c\n", {}, "needs at least 3 rows per class, one for each split, got 1 for 'c'"),
        ("x,kind\n1,\n2,NA\n", {}, "has no row with a value in its target column 'kind'"),
        ("x,kind\n", {}, "has no row with a value in its target column 'kind'"),
        ("x,y,kind\n" + rows("1,"), {}, "column 'y' has no value in the rows to train on; drop: [y] leaves it out"),
        ("x,y,kind\n" + rows("1,"), {"missing": "drop"}, "'y' misses a value in 12 of 12 rows: drop: [y] or impute"),
        ("x,y,kind\n" + rows("1,no #", 300), {}, "column 'y' holds text, like 'no 0', and may have at most 100"),
        (
            "x,kind\n" + rows("1") + "inf,a\n",
            {},
            "column 'x' needs numbers that a float32 can hold, got inf in line 14",
        ),
        ("x,kind\n" + rows("1e39"), {}, "column 'x' needs numbers that a float32 can hold, got 1e+39 in line 2"),
        ("x,kind\n" + rows("1"), {"drop": ("x",)}, "has no column left to learn from beside the target"),
        ("x,kind\n1,a\n1,2,a\n", {}, "is no table: the header has 2 fields, and the row in line 3 has 3"),
        ('x,kind\n"1\n\n",a\n\n1\n', {}, "is no table: the header has 2 fields, and the row in line 6 has 1"),
        ('x,kind\n1,a\n"1,a\n2,a\n', {}, "is no table: a text in quotes needs to end where its field ends"),
        ('x,kind\n1,a\n"1,a\n2,a\n', {}, "in the row that begins in line 3 (unexpected end of data)"),
        ("", {}, "is empty; it needs a header"),
        ("\n  \n", {}, "is empty; it needs a header"),
        ("x,kind\n" + rows("1"), {"target": "KIND"}, "has no column 'KIND'; did you mean 'kind'? (x, kind)"),
        ("0.5,1.5,a\n" + rows("1,2"), {}, "(0.5, 1.5, a); does the file lack a header?"),
        ("x,zip,kind\n" + rows("1,2"), {"categories": ("zipp",)}, "has no column 'zipp'; did you mean 'zip'?"),
        ("x,kind\n1,None\n2,b\n", {}, "got 'b' only; 'None' counted as missing, see missing_words"),
        ("x,kind\n1,NA\n2,-\n", {"missing_words": ("NA", "-")}, "column 'kind'; 'NA', '-' counted as missing"),
    ],
)
def test_a_table_to_learn_nothing_from_is_refused(
    tmp_path: Path, text: str, changes: dict[str, object], message: str
) -> None:
    """The error names the file, the column and the rule that it breaks."""
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load(tmp_path, text, **changes)
    assert str(caught.value).startswith(str(tmp_path / "table.csv"))


def numbers(*others: str, count: int = 18) -> str:
    """Return a table whose column x holds different numbers and some other texts."""
    values = (*map(str, range(count)), *others)
    return "x,kind\n" + "".join(f'"{value}",{"ab"[copy % 2]}\n' for copy in range(30) for value in values)


@pytest.mark.parametrize("offset", [2**24 * 1000, 1_700_000_000])
def test_numbers_that_float32_would_make_alike_are_refused(tmp_path: Path, offset: int) -> None:
    """What a column says in its last digits is not rounded away in silence; less an offset it is read."""
    seconds = "x,kind\n" + "".join(f"{offset + at},{'ab'[at % 2]}\n" for at in range(60))
    with pytest.raises(
        ValueError, match=r"column 'x' needs numbers that stay different as float32.*subtract an offset"
    ):
        load(tmp_path, seconds)
    assert load(tmp_path, seconds.replace(str(offset // 100), "")).columns == (Column(name="x", kind="number"),)


def test_many_numbers_that_are_spread_stay(tmp_path: Path) -> None:
    """A few numbers that meet in float32 among many that do not are no reason to refuse a column."""
    values = np.random.default_rng(0).normal(1000, 300, 2000)
    frame = pd.DataFrame({"x": [*values, 1000.0, 1000.00001], "kind": ["a", "b"] * 1001})
    assert load(tmp_path, frame).columns == (Column(name="x", kind="number"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (numbers("-"), "column 'x': 18 of its 19 different values are numbers, and '-' is none"),
        (numbers("-"), "list it in missing_words; categories: [x] takes them as texts, drop: [x]"),
        (numbers("1,5"), "column 'x' holds numbers with marks"),
        (numbers("1,5"), "like '1,5'; write numbers like 1234.5, without marks; categories: [x]"),
        *(
            (numbers(mark, count=0), f"like {mark!r}; write")
            for mark in ("-0,5", "1,234,567.8", "1 000", "7%", "$5.50")
        ),
        *((numbers(mark, count=0), f"like {mark!r}; write") for mark in ("-€3", "5 €", ",5", "1.000.000")),
    ],
)
def test_numbers_among_few_other_texts_are_not_made_categories(tmp_path: Path, text: str, message: str) -> None:
    """A column that is meant as numbers is refused with an example of what is none, and what to do."""
    with pytest.raises(ValueError, match=re.escape(message)):
        load(tmp_path, text)


@pytest.mark.parametrize("word", ["2024-01-31", "1.2.3", "12:30", "3-5", "5 kg", "%", "€", "1/2", "a1", "-"])
def test_texts_with_digits_stay_texts(tmp_path: Path, word: str) -> None:
    """Dates, versions, times, ranges and signs alone are no numbers with marks."""
    assert load(tmp_path, numbers(word, "other", count=0)).columns[0].categories == tuple(sorted([word, "other"]))


def test_own_words_for_missing_replace_the_usual_ones(tmp_path: Path) -> None:
    """A listed text is missing, in the target as well; NA is then a text, and an empty field is missing always."""
    text = "x,y,kind\n" + rows("#,NA") + "-,NA,a\n,,b\n1,NA,-\n"
    data = load(tmp_path, text, missing_words=("-",))
    assert data.columns == (Column(name="x", kind="number"), Column(name="y", kind="category", categories=("NA",)))
    assert data.classes == ("a", "b")
    assert rows_of(data)[:2] == [(-99.0, -1.0, 1.0), (-99.0, 0.0, 0.0)]
    assert len(rows_of(data)) == 14


def test_numbers_that_are_names_can_be_categories(tmp_path: Path) -> None:
    """A column in `categories` keeps its texts as they are written, whatever share of them are numbers."""
    text = "zip,kind\n" + "".join(f"{('01067', '1067', '-')[at % 3]},{'ab'[at % 2]}\n" for at in range(36))
    assert load(tmp_path, text, categories=("zip",)).columns[0].categories == ("-", "01067", "1067")


def test_a_packed_file_is_the_same_table(tmp_path: Path) -> None:
    """What is packed with gzip is read, whatever its name; what only claims to be, or is cut off, is refused."""
    packed = gzip.compress(table().to_csv(index=False).encode())
    for name in ("table.csv.gz", "packed.csv"):
        (tmp_path / name).write_bytes(packed)
        assert rows_of(Csv(path=str(tmp_path / name), target="kind").load()) == rows_of(load(tmp_path, table()))
    (tmp_path / "cut.csv.gz").write_bytes(packed[:-20])
    with pytest.raises(ValueError, match=r"cut\.csv\.gz is a broken gzip file"):
        Csv(path=str(tmp_path / "cut.csv.gz"), target="kind").load()
    (tmp_path / "text.csv.gz").write_text("x,kind\n")
    with pytest.raises(ValueError, match=r"text\.csv\.gz is no gzip file, whatever its name says"):
        Csv(path=str(tmp_path / "text.csv.gz"), target="kind").load()


def test_an_archive_and_a_folder_are_no_table(tmp_path: Path) -> None:
    """A path to something else than a CSV file is named as what it is."""
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", "x,kind\n")
        archive.writestr("b.csv", "x,kind\n")
    with pytest.raises(ValueError, match=re.escape("two.zip is an archive or a spreadsheet; path needs a CSV file")):
        Csv(path=str(tmp_path / "two.zip"), target="kind").load()
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path} is a folder; path needs to name a CSV file in it")):
        Csv(path=str(tmp_path), target="kind").load()


def test_blanks_separate_if_asked_to(tmp_path: Path) -> None:
    """Fields between blanks or tabs are read like those between commas."""
    frame = table().dropna()
    for separator in (" ", "\t", "|", "é"):
        text = frame.to_csv(index=False, sep=separator)
        assert rows_of(load(tmp_path, text, separator=separator)) == rows_of(load(tmp_path, frame))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A wrong path is answered with the path that was looked at."""
    with pytest.raises(FileNotFoundError, match=re.escape(f"there is no file {tmp_path}/none.csv")):
        Csv(path=str(tmp_path / "none.csv"), target="kind").load()


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are named as such, not read as other letters."""
    (tmp_path / "latin.csv").write_bytes("größe,kind\n1,a\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.csv is no text in UTF-8 .*; save it as UTF-8"):
        Csv(path=str(tmp_path / "latin.csv"), target="kind").load()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation": 0.0}, "validation needs to be a share above 0 and below 1, got 0.0"),
        ({"test": 1.0}, "test needs to be a share above 0 and below 1, got 1.0"),
        ({"validation": 0.5, "test": 0.5}, "need to leave rows to train on"),
        ({"drop": ("kind",)}, "drop needs to leave the target, got 'kind' in both"),
        ({"squares": True, "standardize": False}, "squares needs standardize: true"),
        ({"separator": ", "}, "separator needs to be one character, and no quote or end of a line, got ', '"),
        ({"separator": "\n"}, "separator needs to be one character, and no quote or end of a line, got '\\n'"),
        ({"separator": '"'}, "separator needs to be one character, and no quote or end of a line, got '\"'"),
        ({"path": "https://host/x.csv"}, "only files are read, got the address https://host/x.csv; download it"),
        ({"path": "/here/http:/host/x.csv"}, "path needs a file, for only files are read"),
        ({"categories": ("kind",)}, "categories needs to leave the target, got 'kind' in both"),
        ({"categories": ("x",), "drop": ("x",)}, "categories need to be columns that are not dropped, got 'x' in both"),
        ({"missing_words": ("-", " x")}, "missing_words need to be without blanks around them"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, object], message: str) -> None:
    """A contradiction is reported when the space is read, before the file is."""
    with pytest.raises(ValueError, match=re.escape(message)):
        Csv(**{"path": "x.csv", "target": "kind", **changes})  # type: ignore[arg-type]  # settings by name
