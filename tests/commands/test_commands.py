"""The `flask` commands as a person or a program calls them: what they print, where, and with which exit status."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from flask.testing import FlaskCliRunner

from service.store import Store
from tests.conftest import PENGUIN, ROOT
from tests.originals import keep_originals

SAMPLE = ROOT / "examples" / "penguins" / "penguins.csv"
MODEL = ROOT / "models" / "penguins" / "1" / "model.joblib"
HEADER = ",".join(PENGUIN)
ROW = ",".join(map(str, PENGUIN.values()))
GENTOO = "47.5,14.2,230,5500,Biscoe,male"
FORMS = ("compiled.npz", "model.joblib")
FLAGS = ("--target", "species", "--drop", "year")

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    """Undo what a command does to the logging of its process, for the sake of other modules' tests."""
    log = logging.getLogger("service")
    handlers, propagate = log.handlers[:], log.propagate
    yield
    log.handlers[:], log.propagate = handlers, propagate


@pytest.fixture
def run(runner: FlaskCliRunner) -> Run:
    """Run `flask` with arguments; an exception that is no exit is the test's own."""

    def invoke(*arguments: Any, stdin: str | bytes | None = None) -> Result:
        result = runner.invoke(args=list(map(str, arguments)), input=stdin, catch_exceptions=False)
        assert "Traceback" not in result.stderr
        return result

    return invoke


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    """A CSV file of two penguins."""
    path = tmp_path / "rows.csv"
    path.write_text(f"{HEADER}\n{ROW}\n{GENTOO}\n")
    return path


def add_version(models_dir: Path, name: str, version: str) -> Path:
    """Copy the demo package to another name and version."""
    package = Path(shutil.copytree(models_dir / "penguins" / "1", models_dir / name / version))
    document = json.loads((package / "manifest.json").read_text()) | {"name": name, "version": version}
    (package / "manifest.json").write_text(json.dumps(document))
    return package


def test_a_command_leaves_the_logging_as_it_was(run: Run) -> None:
    """A command that is called within a process does not silence what this process logs afterwards."""
    run("models")
    assert logging.getLogger("service").propagate


# flask models


def test_models_prints_a_table(run: Run, models_dir: Path) -> None:
    """Every version stands in a line, and what answers by default is marked."""
    add_version(models_dir, "penguins", "10")
    add_version(models_dir, "birds", "2")
    result = run("models")
    assert result.exit_code == 0
    header, *lines = [re.split(r"\s{2,}", line) for line in result.stdout.splitlines()]
    assert header == ["MODEL", "VERSION", "ACTIVE", "TASK", "RUNTIME", "SIZE", "CREATED"]
    manifest = json.loads((models_dir / "penguins" / "1" / "manifest.json").read_text())
    size = sum(entry["size_bytes"] for entry in manifest["files"]) / 1024
    facts = ["classification", "compiled", f"{size:.0f} KiB", manifest["created"]]
    assert lines == [
        ["birds", "2", "active", *facts],
        ["penguins", "1", *facts],
        ["penguins", "10", "active, default", *facts],
    ]


def test_models_prints_json(run: Run, models_dir: Path) -> None:
    """With --json the same comes as a list of objects."""
    result = run("models", "--json")
    assert result.exit_code == 0
    (row,) = json.loads(result.stdout)
    assert row.pop("created").startswith("20")
    assert row == {
        "name": "penguins",
        "version": "1",
        "active": True,
        "default": True,
        "task": "classification",
        "runtime": "compiled",
        "size_bytes": sum((models_dir / "penguins" / "1" / name).stat().st_size for name in FORMS),
    }


@pytest.mark.parametrize("flags", [(), ("--json",)], ids=["text", "json"])
def test_models_lists_broken_package_with_its_error(run: Run, models_dir: Path, flags: tuple[str, ...]) -> None:
    """A package whose manifest is broken is listed with its error beside those in order."""
    (add_version(models_dir, "birds", "1") / "manifest.json").write_text("{")
    result = run("models", *flags)
    assert result.exit_code == 0
    assert "birds/1: manifest.json is not valid" in result.stdout
    assert "classification" in result.stdout


@pytest.mark.parametrize(("flags", "says"), [((), "flask pack model.joblib --sample train.csv"), (("--json",), "[]")])
def test_models_of_an_empty_folder(make_app: Callable[..., Flask], tmp_path: Path, flags: Any, says: str) -> None:
    """Without a package the list is empty, and the text says how to make one."""
    result = make_app(models_dir=tmp_path / "absent").test_cli_runner().invoke(args=["models", *flags])
    assert result.exit_code == 0
    assert says in result.stdout


# flask activate


def test_activate_chooses_a_version(run: Run, models_dir: Path, store: Store) -> None:
    """The version that is said answers from then on."""
    add_version(models_dir, "penguins", "2")
    result = run("activate", "penguins", "1")
    assert (result.exit_code, result.stdout) == (0, "penguins/1 is active and the default\n")
    assert store.active("penguins") == "1"


def test_activate_makes_a_model_the_default(run: Run, models_dir: Path, store: Store) -> None:
    """With --default and no version the model becomes the default, and its newest version stays active."""
    add_version(models_dir, "birds", "2")
    result = run("activate", "birds", "--default")
    assert (result.exit_code, result.stdout) == (0, "birds/2 is active and the default\n")
    assert store.default() == "birds"


def test_activate_prints_json(run: Run, models_dir: Path) -> None:
    """With --json a program reads what is active and whether it is the default."""
    add_version(models_dir, "birds", "2")
    result = run("activate", "birds", "2", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"name": "birds", "active": "2", "default": False}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("penguins", "9"), "penguins has no version '9'; it has 1"),
        (("penguins", "../1"), "penguins has no version '../1'; it has 1"),
        (("nope", "--default"), "no package is called 'nope'"),
        (("nope", "1"), "no package is called 'nope'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_activate_refuses_what_is_not_there(run: Run, models_dir: Path, arguments: Any, says: str) -> None:
    """An unknown version or model is refused in one line with exit status 1, and no pointer is written."""
    result = run("activate", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {says}")
    assert not (models_dir / "penguins" / "active").exists()


def test_activate_refuses_as_json(run: Run) -> None:
    """With --json an error is an object with its code, and the exit status is 1."""
    result = run("activate", "penguins", "9", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["code"] == "unknown-version"


def test_activate_refuses_a_version_that_was_altered(run: Run, models_dir: Path, store: Store) -> None:
    """A version whose file is not the packed one is refused before any pointer is written, and so is another skew."""
    os.truncate(add_version(models_dir, "penguins", "2") / "model.joblib", 100)
    store.activate("penguins", "1", default=False)
    result = run("activate", "penguins", "2")
    assert result.exit_code == 1
    assert "penguins/2: model.joblib has 100 bytes" in result.stderr
    assert store.active("penguins") == "1"


def test_activate_mends_what_cannot_be_read(run: Run, models_dir: Path, store: Store) -> None:
    """A pointer that cannot be read is written anew by the command that writes pointers."""
    (models_dir / "penguins" / "active").write_bytes(b"\xff")
    (models_dir / "default").write_bytes(b"\xff")
    assert run("activate", "penguins", "1", "--default").exit_code == 0
    assert (store.active("penguins"), store.default()) == ("1", "penguins")


def test_activate_tells_of_a_default_that_cannot_be_read(run: Run, models_dir: Path) -> None:
    """A default pointer that cannot be read is an error in one line and no traceback."""
    (models_dir / "default").write_bytes(b"\xff")
    result = run("activate", "penguins", "1")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: models/default must be a file of one line")


def test_activate_wants_something_said(run: Run) -> None:
    """With neither a version nor --default there is nothing to do, which is a wrong use."""
    result = run("activate", "penguins")
    assert result.exit_code == 2
    assert "say a VERSION, or --default, or both" in result.stderr


# flask example


def asked(text: str) -> tuple[str, Any]:
    """The path and the body of a printed curl line, as a shell reads them."""
    words = shlex.split(text[text.index("curl") :].replace("\\\n", " "))
    return words[1].removeprefix("http://127.0.0.1:8000"), json.loads(words[words.index("-d") + 1])


@pytest.mark.parametrize("arguments", [(), ("penguins",)], ids=["default", "named"])
def test_example_prints_a_line_that_is_answered(run: Run, app: Flask, arguments: tuple[str, ...]) -> None:
    """What the printed line sends is answered by the service."""
    result = run("example", *arguments)
    assert result.exit_code == 0
    assert result.stdout.startswith("penguins/1 answers on http://127.0.0.1:8000")
    path, body = asked(result.stdout)
    assert path == "/predict"
    answer = app.test_client().post(path, json=body)
    assert answer.json is not None
    assert answer.json["predictions"] == ["Adelie"]


def test_example_names_a_model_that_is_not_the_default(run: Run, models_dir: Path, app: Flask) -> None:
    """A model that is not the default is asked by its name."""
    add_version(models_dir, "birds", "2")
    path, body = asked(run("example", "birds").stdout)
    assert path == "/v1/models/birds:predict"
    assert app.test_client().post(path, json=body).status_code == 200


def test_example_refuses_unknown_model(run: Run) -> None:
    """An unknown model is refused in one line."""
    result = run("example", "nope")
    assert result.exit_code == 1
    assert result.stderr == "Error: no package is called 'nope'; `flask models` lists what there is\n"


def test_example_of_an_empty_folder(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    """Without a package there is no example, and the message says how to make one."""
    result = make_app(models_dir=tmp_path / "absent").test_cli_runner().invoke(args=["example"])
    assert result.exit_code == 1
    assert "flask pack model.joblib --sample train.csv" in result.stderr


# flask predict


def test_predict_answers_a_file(run: Run, rows_file: Path) -> None:
    """A CSV file is answered as CSV, one line a row under the output's name."""
    result = run("predict", "penguins", rows_file)
    assert (result.exit_code, result.stdout) == (0, "species\nAdelie\nGentoo\n")
    assert result.stderr == ""


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=ascii)
def test_predict_answers_standard_input(run: Run, rows_file: Path, start: bytes, end: str) -> None:
    """Standard input is read where the file is called -, whatever ends its lines."""
    content = start + rows_file.read_text().replace("\n", end).encode()
    result = run("predict", "penguins", "-", stdin=content)
    assert (result.exit_code, result.stdout) == (0, "species\nAdelie\nGentoo\n")


def test_predict_reads_a_spelt_gap_as_null(run: Run) -> None:
    """What the sample spelt as NA is a gap here too."""
    result = run("predict", "penguins", "-", stdin=f"{HEADER}\nNA,18.7,NA,3750,Torgersen,\n")
    assert (result.exit_code, result.stdout) == (0, "species\nAdelie\n")


def test_predict_answers_json_lines(run: Run, rows_file: Path) -> None:
    """With --json every row is answered by one object in a line."""
    result = run("predict", "penguins", rows_file, "--json")
    assert result.exit_code == 0
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"prediction": "Adelie"},
        {"prediction": "Gentoo"},
    ]


def test_predict_answers_probabilities(run: Run, rows_file: Path) -> None:
    """With --probabilities every class has a column, and a row's shares add up to 1."""
    rows = list(csv.DictReader(io.StringIO(run("predict", "penguins", rows_file, "--probabilities").stdout)))
    assert list(rows[0]) == ["species", "probability_Adelie", "probability_Chinstrap", "probability_Gentoo"]
    assert sum(float(share) for name, share in rows[0].items() if name != "species") == pytest.approx(1)
    assert float(rows[0]["probability_Adelie"]) > 0.9


def test_predict_answers_probabilities_as_json(run: Run, rows_file: Path) -> None:
    """With both flags every object holds the shares by class."""
    result = run("predict", "penguins", rows_file, "--json", "--probabilities")
    line = json.loads(result.stdout.splitlines()[1])
    assert line["prediction"] == "Gentoo"
    assert sum(line["probabilities"].values()) == pytest.approx(1)
    assert max(line["probabilities"], key=line["probabilities"].get) == "Gentoo"


def test_predict_drops_columns(run: Run) -> None:
    """Columns named by --drop are passed over, so that the sample itself can be scored."""
    result = run("predict", "penguins", SAMPLE, "--drop", "species", "--drop", "year")
    assert result.exit_code == 0
    truth = [row["species"] for row in csv.DictReader(SAMPLE.read_text().splitlines())]
    answers = result.stdout.splitlines()[1:]
    assert len(answers) == len(truth)
    assert sum(answer == species for answer, species in zip(answers, truth, strict=True)) > 0.98 * len(truth)


@pytest.mark.parametrize("flag", ["-o", "--output"])
def test_predict_writes_a_file(run: Run, rows_file: Path, tmp_path: Path, flag: str) -> None:
    """With -o the answers go to a file, and nothing to standard output."""
    result = run("predict", "penguins", rows_file, flag, tmp_path / "answers.csv")
    assert (result.exit_code, result.stdout) == (0, "")
    assert (tmp_path / "answers.csv").read_bytes() == b"species\nAdelie\nGentoo\n"


@pytest.mark.parametrize(
    ("path", "reason"), [("absent/answers.csv", "No such file or directory"), (".", "Is a directory")]
)
def test_predict_refuses_a_file_that_cannot_be_written(
    run: Run, rows_file: Path, tmp_path: Path, path: str, reason: str
) -> None:
    """What no answers can be written to is refused in one line with its name."""
    result = run("predict", "penguins", rows_file, "-o", tmp_path / path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{tmp_path / path} cannot be written: {reason}" in result.stderr


def test_predict_writes_into_a_pipe(run: Run, rows_file: Path, tmp_path: Path) -> None:
    """What is no regular file, such as a pipe or /dev/null, is written into and never replaced by one."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert run("predict", "penguins", rows_file, "-o", tmp_path / "pipe").exit_code == 0
        assert (tmp_path / "pipe").is_fifo()
        assert os.read(reader, 1000) == b"species\nAdelie\nGentoo\n"
    finally:
        os.close(reader)


def test_predict_asks_the_version_that_is_said(run: Run, models_dir: Path, rows_file: Path) -> None:
    """With --version that version answers, though a newer one is active and broken."""
    (add_version(models_dir, "penguins", "2") / "model.joblib").write_bytes(b"")
    assert run("predict", "penguins", rows_file, "--version", "1").exit_code == 0
    result = run("predict", "penguins", rows_file)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: penguins/2: model.joblib has 0 bytes")


BAD_ROWS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "there is no header; the first line must name the columns: bill_length_mm"),
    "blank": ("\n\n", "there is no header"),
    "header only": (f"{HEADER}\n", "a header and no row"),
    "no header": (f"{ROW}\n{ROW}\n", "'39.1' is no column of this model"),
    "missing column": (f"{HEADER.removesuffix(',sex')}\n{ROW.removesuffix(',male')}\n", "the column 'sex' is missing"),
    "unknown column": (f"{HEADER},year\n{ROW},2007\n", "'year' is no column of this model"),
    "column twice": (f"{HEADER},sex\n{ROW},male\n", "a column stands twice"),
    "semicolons": (f"{HEADER}\n{ROW}\n".replace(",", ";"), "is no column of this model"),
    "short row": (f"{HEADER}\n{ROW}\n1,2\n", "row 1 has 2 cells and there are 6 columns"),
    "open quote": (f'{HEADER}\n{ROW}\n"', "is not CSV"),
    "text for a number": (
        f"{HEADER}\n{ROW}\n{ROW.replace('39.1', 'long')}\n",
        "expected a number, found the text 'long'",
    ),
    "a gap that the model does not take": (f"{HEADER}\n{ROW.replace('Torgersen', '')}\n", "'island' is null"),
    "a number too large": (f"{HEADER}\n{ROW.replace('39.1', '1e999')}\n", "too large"),
    "not UTF-8 in the header": (b"\xff\xfe\n", "not UTF-8"),
    "not UTF-8 in a row": (f"{HEADER}\n{ROW}\n".encode() + b"\xff,1,1,1,a,b\n", "not UTF-8"),
    "a NUL": (f"{HEADER}\n{ROW.replace('39.1', chr(0))}\n", "expected a number"),
}


@pytest.mark.parametrize("way", ["file", "standard input"])
@pytest.mark.parametrize("case", BAD_ROWS)
def test_predict_refuses_bad_rows(run: Run, tmp_path: Path, case: str, way: str) -> None:
    """What is no CSV of this model's rows is refused with the reason and exit status 1, and nothing is answered."""
    content, says = BAD_ROWS[case]
    whole = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "bad.csv").write_bytes(whole)
    result = run("predict", "penguins", tmp_path / "bad.csv" if way == "file" else "-", stdin=whole)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert says in result.stderr


def test_predict_lists_faults_by_row(run: Run) -> None:
    """Values that do not fit are listed by row and feature."""
    bad = ROW.replace("39.1", "long").replace("3750.0", "heavy")
    result = run("predict", "penguins", "-", stdin=f"{HEADER}\n{ROW}\n{bad}\n")
    assert "row 1, bill_length_mm: expected a number, found the text 'long'" in result.stderr
    assert "row 1, body_mass_g: expected a number, found the text 'heavy'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nope", "ROWS"), "no package is called 'nope'"),
        (("penguins", "ROWS", "--version", "9"), "has no version '9'"),
        (("penguins", "ROWS", "--version", "../1"), "has no version '../1'"),
        (("penguins", "absent.csv"), "absent.csv cannot be read: No such file or directory"),
        (("penguins", "/"), "/ cannot be read: Is a directory"),
        (("penguins", "ROWS", "--drop", "sex"), "the column 'sex' is missing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_predict_refuses_arguments(run: Run, rows_file: Path, arguments: tuple[str, ...], says: str) -> None:
    """What cannot be asked or written is refused in one line with exit status 1."""
    result = run("predict", *(rows_file if word == "ROWS" else word for word in arguments))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert says in result.stderr


def test_predict_refuses_broken_package(run: Run, models_dir: Path, rows_file: Path) -> None:
    """A package that is not as it was packed is refused here as by the service."""
    (models_dir / "penguins" / "1" / "model.joblib").write_bytes(b"")
    result = run("predict", "penguins", rows_file)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: penguins/1: model.joblib has 0 bytes")


def test_predict_refuses_what_the_policy_does_not_allow(
    make_app: Callable[..., Flask], models_dir: Path, rows_file: Path
) -> None:
    """The operator's settings hold for the command too."""
    keep_originals(models_dir)
    runner = make_app(allow_pickle=False).test_cli_runner()
    result = runner.invoke(args=["predict", "penguins", str(rows_file)])
    assert result.exit_code == 1
    assert "ANYPORT_ALLOW_PICKLE" in result.stderr


# flask predict, in blocks


@pytest.fixture(scope="module")
def many_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 25,000 rows, which are two blocks and a half; every 1,000th is a Gentoo."""
    path = tmp_path_factory.mktemp("many") / "many.csv"
    rows = [GENTOO if index % 1000 == 0 else ROW for index in range(25_000)]
    path.write_text("\n".join([HEADER, *rows, ""]))
    return path


@pytest.mark.parametrize("flags", [(), ("--json",)], ids=["csv", "json"])
def test_predict_answers_many_rows_in_order(run: Run, many_rows: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """25,000 rows are answered in their order, under one header."""
    assert run("predict", "penguins", many_rows, "-o", tmp_path / "answers", *flags).exit_code == 0
    lines = (tmp_path / "answers").read_text().splitlines()
    assert lines.count("species") == (0 if flags else 1)
    answers = [json.loads(line)["prediction"] for line in lines] if flags else lines[1:]
    assert answers == ["Gentoo" if index % 1000 == 0 else "Adelie" for index in range(25_000)]


@pytest.fixture
def late_fault(many_rows: Path, tmp_path: Path) -> Path:
    """The same file with a fault in row 24,000."""
    lines = many_rows.read_text().splitlines()
    lines[24_001] = lines[24_001].replace("47.5", "long")
    path = tmp_path / "late.csv"
    path.write_text("\n".join(lines))
    return path


def test_predict_counts_rows_within_the_file(run: Run, late_fault: Path) -> None:
    """A fault in a later block is told by its row in the file."""
    result = run("predict", "penguins", late_fault)
    assert result.exit_code == 1
    assert "row 24000, bill_length_mm: expected a number, found the text 'long'" in result.stderr


def test_predict_leaves_no_half_file(run: Run, late_fault: Path, tmp_path: Path) -> None:
    """Where a later block fails, a file that was there before stays as it was."""
    (tmp_path / "answers.csv").write_text("of yesterday")
    assert run("predict", "penguins", late_fault, "-o", tmp_path / "answers.csv").exit_code == 1
    assert (tmp_path / "answers.csv").read_text() == "of yesterday"


def test_predict_makes_no_half_file(run: Run, late_fault: Path, tmp_path: Path) -> None:
    """Where a later block fails, no file is made."""
    before = sorted(path.name for path in tmp_path.iterdir())
    assert run("predict", "penguins", late_fault, "-o", tmp_path / "answers.csv").exit_code == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


# flask pack


def test_pack_tells_what_it_made(run: Run, app: Flask, models_dir: Path, store: Store) -> None:
    """A new package is told with its features, quality and cost, and answers at once by the line that is printed."""
    result = run("pack", MODEL, "--sample", SAMPLE, *FLAGS, "--name", "birds", "--default")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    first, *lines = result.stdout.splitlines()
    assert first == f"packed birds/1 into {models_dir / 'birds' / '1'}"
    assert "  bill_length_mm: float64 or null" in lines
    assert "  island: string" in lines
    assert any(re.fullmatch(r"  task: classification \(accuracy 0\.99\d* on the sample\)", line) for line in lines)
    assert any(re.fullmatch(r"  cost: \d+ us a row, \d+ MiB a worker", line) for line in lines)
    assert not any("change it with" in line for line in lines)
    assert store.default() == "birds"
    path, body = asked(result.stdout)
    assert path == "/predict"
    answer = app.test_client().post(path, json=body)
    assert answer.json is not None
    assert answer.json["predictions"] == ["Adelie"]


def test_pack_prints_json(run: Run, models_dir: Path, store: Store) -> None:
    """With --json a program reads the package; the version that was chosen stays active and the default the default."""
    store.activate("penguins", "1", default=False)
    result = run("pack", MODEL, "--sample", SAMPLE, "--target", "species", "--name", "penguins", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["name"], document["version"], document["task"]) == ("penguins", "2", "classification")
    assert (document["active"], document["default"]) == ("1", "penguins")
    assert document["folder"] == str(models_dir / "penguins" / "2")
    assert document["notes"] == ["the model was not fitted on these columns of the sample; passed over: year"]
    assert document["metrics"]["accuracy"] > 0.99
    assert [feature["name"] for feature in document["signature"]["features"]] == list(PENGUIN)
    assert document["cost"]["process_mib"] > 0
    assert store.versions() == {"penguins": ["1", "2"]}


PACK_ERRORS = {
    "model missing": (("absent.joblib",), "the model absent.joblib cannot be read"),
    "version taken": ((MODEL, "--name", "penguins", "--version", "1"), "never overwritten"),
    "name malformed": ((MODEL, "--name", "../x"), "must be 1 to 64 of a-z"),
    "type unknown": ((MODEL, "--dtype", "sex=text"), "--dtype sex=text is no type; types are float64"),
    "type without column": ((MODEL, "--dtype", "text"), "--dtype text must be written as COLUMN=VALUE"),
    "categories without values": ((MODEL, "--categories", "sex="), "must be written as COLUMN=VALUE"),
    "separator too long": ((MODEL, "--separator", "::"), "--separator '::' must be one character"),
    "separator of another kind": ((MODEL, "--separator", ";"), "which the sample does not have; it has species,"),
    "column unknown": ((MODEL, "--target", "specie"), "did you mean 'species'"),
}


@pytest.mark.parametrize("case", PACK_ERRORS)
def test_pack_refuses(run: Run, case: str) -> None:
    """What cannot be packed is refused in one line with exit status 1."""
    arguments, says = PACK_ERRORS[case]
    result = run("pack", *arguments, "--sample", SAMPLE)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert says in result.stderr


@pytest.mark.parametrize("case", ["model missing", "type unknown"])
def test_pack_refuses_as_json(run: Run, case: str) -> None:
    """With --json the same refusal is an object with its code, and nothing else is printed."""
    arguments, says = PACK_ERRORS[case]
    result = run("pack", *arguments, "--sample", SAMPLE, "--json")
    assert (result.exit_code, result.stderr) == (1, "")
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "packing-failed"
    assert says in error["detail"]


@pytest.mark.parametrize("arguments", [("--sample", SAMPLE), (MODEL, "--sample", SAMPLE, "--layout", "row")])
def test_pack_refuses_wrong_use(run: Run, arguments: tuple[Any, ...]) -> None:
    """A command line that lacks what is required, or holds what is no choice, is a wrong use."""
    result = run("pack", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ")


@pytest.mark.parametrize("separator", [";", "\t", "|"], ids=["semicolon", "tab", "bar"])
def test_pack_advises_a_separator_that_it_takes(run: Run, tmp_path: Path, separator: str) -> None:
    """What the message about a wrong separator says to add to the command line is understood there."""
    (tmp_path / "sample.csv").write_text(SAMPLE.read_text().replace(",", separator))
    advice = run("pack", MODEL, "--sample", tmp_path / "sample.csv").stderr
    flag, value = shlex.split(advice[advice.index("--separator") :].strip())[:2]
    result = run("pack", MODEL, "--sample", tmp_path / "sample.csv", flag, value, "--target", "nope")
    assert "--target names the column 'nope'" in result.stderr


# flask pack --compile, flask compile


def test_pack_tells_that_it_compiled(run: Run) -> None:
    """By default a model is compiled where it can be, and how many rows were asked is told."""
    result = run("pack", MODEL, "--sample", SAMPLE, *FLAGS, "--name", "birds")
    assert result.exit_code == 0, result.stderr
    assert re.search(r"^  compiled: answers \d+ rows as the original does, to within ", result.stdout, re.MULTILINE)


@pytest.mark.parametrize(("said", "runtimes"), [("never", ["joblib"]), ("require", ["compiled", "joblib"])])
def test_pack_compiles_as_told(run: Run, said: str, runtimes: list[str]) -> None:
    """With --compile never the original stands alone, with require its compiled form stands before it."""
    result = run("pack", MODEL, "--sample", SAMPLE, *FLAGS, "--name", "birds", "--compile", said, "--json")
    assert result.exit_code == 0, result.stderr
    assert [artifact["runtime"] for artifact in json.loads(result.stdout)["artifacts"]] == runtimes


@pytest.mark.parametrize("flags", [(), ("--sample", SAMPLE)], ids=["golden rows alone", "with a sample"])
def test_compile_makes_the_next_version(run: Run, models_dir: Path, flags: tuple[Any, ...]) -> None:
    """`flask compile` makes a version with a compiled form in front, and --json tells its proof."""
    keep_originals(models_dir)
    result = run("compile", "penguins", *flags, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    compiled, original = document["artifacts"]
    assert (document["name"], document["version"]) == ("penguins", "2")
    assert (compiled["runtime"], original["runtime"]) == ("compiled", "joblib")
    assert compiled["parity"]["rows"] > 0 and original["parity"] is None


COMPILE_ERRORS = {
    "compiled already": (("penguins",), "penguins/1 has a compiled form already"),
    "no such model": (("nope",), "no package is called 'nope'"),
    "no such version": (("penguins", "9"), "penguins/9: manifest.json cannot be read"),
    "no such sample": (("penguins", "1", "--sample", "absent.csv"), "absent.csv"),
    "no separator": (("penguins", "1", "--sample", SAMPLE, "--separator", "ab"), "must be one character"),
}


@pytest.mark.parametrize("case", COMPILE_ERRORS)
def test_compile_refuses_in_one_line(run: Run, models_dir: Path, case: str) -> None:
    """What cannot be compiled is told in one line, and no version is made."""
    arguments, expected = COMPILE_ERRORS[case]
    result = run("compile", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ") and expected in result.stderr
    assert [path.name for path in (models_dir / "penguins").iterdir()] == ["1"]


@pytest.fixture
def bucket(tmp_path: Path, models_dir: Path) -> Path:
    """A folder in the place of a bucket, with two versions of a model that is not here."""
    folder = tmp_path / "bucket"
    for version in ("1", "2"):
        add_version(models_dir, "wine", version)
    shutil.move(models_dir / "wine", folder / "wine")
    (folder / "wine" / "active").write_text("1\n")
    return folder


def test_fetch_brings_packages_and_pointers(run: Run, bucket: Path, store: Store) -> None:
    """`flask fetch` says what came and what was here already, and the version that is active there is active here."""
    said = run("fetch", f"file://{bucket}")
    assert (said.exit_code, said.stdout) == (0, "wine/1 is here now\nwine/2 is here now\n")
    assert store.active("wine") == "1" and store.default() == "penguins"
    assert run("fetch", f"file://{bucket}").stdout == "wine/1 was here already\nwine/2 was here already\n"
    document = json.loads(run("fetch", f"file://{bucket}", "--json").stdout)
    assert document == {"arrived": [], "held": ["wine/1", "wine/2"], "refused": {}}


def test_fetch_of_a_broken_package_fails(run: Run, bucket: Path, store: Store) -> None:
    """What does not verify is told by its file, as text and as JSON, with exit status 1."""
    (bucket / "wine" / "2" / "model.joblib").write_bytes(b"cut")
    said = run("fetch", f"file://{bucket}")
    assert (said.exit_code, said.stdout) == (1, "wine/1 is here now\n")
    assert said.stderr.startswith("wine/2 is not fetched: wine/2: model.joblib in the bucket has 3 bytes")
    said = run("fetch", f"file://{bucket}", "--json")
    assert said.exit_code == 1 and json.loads(said.stdout)["refused"]["wine/2"]["code"] == "checksum-mismatch"
    assert store.versions()["wine"] == ["1"]


def test_fetch_takes_its_address_from_the_settings(make_app: Callable[..., Flask], bucket: Path) -> None:
    """Without an address it fetches what the service would; without either it says what is missing."""
    runner = make_app(models_uri=f"file://{bucket}").test_cli_runner()
    assert runner.invoke(args=["fetch"]).exit_code == 0
    said = make_app().test_cli_runner().invoke(args=["fetch"])
    assert said.exit_code == 2 and "ANYPORT_MODELS_URI" in said.stderr


@pytest.mark.parametrize(
    ("address", "why"), [("http://h/x", "is no address of models"), ("file:///no/such", "cannot be")]
)
def test_fetch_from_nowhere_fails(run: Run, address: str, why: str) -> None:
    """An address that is none, or that cannot be read, is one line and exit status 1."""
    said = run("fetch", address)
    assert said.exit_code == 1 and why in said.stderr
