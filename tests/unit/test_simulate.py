"""`labelloop simulate`: what it reads, what it refuses, what it writes, and that it goes on where it was stopped."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest

from labelloop.errors import InvalidInputError
from learning.cycle import savings
from learning.cycle.savings import Crossing, Curve
from learning.cycle.simulation import Data, Info, check_data
from scripts import bench_saved_labels
from scripts.cli import main
from scripts.simulation.datasets import Request, read_data
from scripts.simulation.files import Labelled, read_file


class PressingCtrlC:
    """Looks at the progress; its sixth look is Ctrl-C."""

    looks = 0

    def __call__(self) -> None:
        self.looks += 1
        if self.looks == 6:
            raise KeyboardInterrupt


# ---------------------------------------------------------------- what curves say


def curve(*scores: float) -> Curve:
    return np.arange(1, len(scores) + 1) * 10, np.array(scores)


@pytest.mark.parametrize(
    ("scores", "target", "labels", "is_censored"),
    [
        ((0.1, 0.5, 0.9, 0.9, 0.9), 0.9, 30, False),  # the median of 0.5, 0.9 and 0.9
        ((0.1, 0.95, 0.1, 0.2, 0.3), 0.9, 50, True),  # one lucky round
        ((0.9, 0.9), 0.9, 10, False),
        ((0.2,), 0.9, 10, True),
        ((0.2, 0.8, 0.9), 0.85, 30, False),  # the last is the median of two
    ],
)
def test_a_crossing_is_where_the_median_of_three_rounds_gets_there(
    scores: tuple[float, ...], target: float, labels: int, is_censored: bool
) -> None:
    found = savings.crossing(curve(*scores), target)
    assert found == Crossing(labels, is_censored)


def test_a_ratio_says_when_it_is_a_bound() -> None:
    seen, never = [Crossing(50, False), Crossing(60, False)], [Crossing(100, False), Crossing(120, True)]
    assert savings.ratio(seen, seen).value == 1.0
    assert savings.ratio(seen, never).bound == "<="
    assert savings.ratio(never, seen).bound == ">="
    assert savings.ratio(never, never).bound == "?"
    half = savings.ratio(seen, [Crossing(100, False), Crossing(120, False)])
    assert half.bound == "" and half.low <= half.value <= half.high and half.value == 0.5


def test_the_area_is_the_mean_height_and_the_verdict_needs_bands_that_do_not_touch() -> None:
    assert savings.area(curve(0.0, 1.0)) == 0.5
    assert savings.area(curve(0.25)) == 0.25
    for mine, base, verdict in (
        ([0.9, 0.91], [0.8, 0.81], "better"),
        ([0.8, 0.81], [0.9, 0.91], "worse"),
        ([0.8, 0.9], [0.82, 0.89], "within bands"),
    ):
        assert savings.verdict(mine, base) == verdict
    with pytest.raises(InvalidInputError, match="a round at least"):
        savings.crossing((np.empty(0, dtype=np.int64), np.empty(0)), 0.9)


# ---------------------------------------------------------------- what it reads


def write_rows(folder: Path, suffix: str) -> Path:
    rows = [{"id": str(n), "team": "ab"[n % 2], "size": n % 2 + n / 100, "colour": ["red", ""][n % 2]} for n in range(40)]
    path = folder / f"rows{suffix}"
    if suffix == ".csv":
        path.write_text("id,team,size,colour\n" + "".join(f"{r['id']},{r['team']},{r['size']},{r['colour']}\n" for r in rows))
    elif suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_rows_of_each_format_are_the_same_table(suffix: str, tmp_path: Path) -> None:
    found = read_file(write_rows(tmp_path, suffix), "team", "")
    assert isinstance(found, Labelled)
    assert (found.category, found.labels[:3], found.items[1].name) == ("tables", ["a", "b", "a"], "row 2")
    assert msgspec.json.decode(found.items[1].data)["size"] == 1.01
    data = read_data(Request(dataset=str(write_rows(tmp_path, suffix)), label="team"), tmp_path)
    assert data.info.labels == ("a", "b") and data.info.encoder == "table-columns"
    assert len(data.x) + len(data.test_x) == 40


def test_texts_and_folders_are_known_by_what_is_in_them(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"words": f"text {n}", "label": n % 2}) for n in range(9)))
    found = read_file(path, "label", "")
    assert isinstance(found, Labelled)
    assert (found.category, found.labels[:2], found.items[0].data) == ("text-classification", ["0", "1"], b"text 0")
    for name in ("cat", "dog"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        (tmp_path / "classes" / name / "a.png").write_bytes(b"no picture, but a name")
    found = read_file(tmp_path / "classes", "label", "")
    assert isinstance(found, Labelled)
    assert (found.category, found.labels) == ("image-classification", ["cat", "dog"])


def write_npz(folder: Path, **arrays: Any) -> Path:
    rng = np.random.default_rng(0)
    y = np.arange(150) % 3
    known = {"x": (rng.standard_normal((150, 5)) + 3 * np.eye(3, 5)[y]).astype(np.float32), "y": y}
    path = folder / "points.npz"
    np.savez(path, **{**known, **arrays})
    return path


# ---------------------------------------------------------------- what it refuses

REFUSED: list[tuple[Callable[[Path], list[str]], str]] = [
    (lambda _: ["guess"], "no data set 'guess': built in are "),
    (lambda f: [str(f / "none.csv")], "no data at"),
    (lambda f: [str(f)], "has no folders with files in them"),
    (lambda f: [str(write_rows(f, ".csv"))], "has no column 'label' for --label: there are id, team, size, colour"),
    (lambda f: [str(write_rows(f, ".csv")), "--label", "team", "--text", "story"], "no column 'story' for --text"),
    (lambda f: [str(write_rows(f, ".csv")), "--label", "colour"], "row 2 of rows.csv has no label in column 'colour'"),
    (lambda f: [str(write_npz(f)), "--items", "999"], "999 items asked for, points has 150"),
    (lambda f: [str(write_npz(f)), "--budget", "999"], "--budget 999 and the"),
    (lambda f: [str(write_npz(f)), "--strategies", "auto,guess"], "strategy 'guess' is unknown"),
    (lambda f: [str(write_npz(f)), "--strategies", "region_uncertainty"], "needs part"),
    (lambda f: [str(write_npz(f)), "--algorithm", "guess"], "algorithm 'guess' is unknown"),
    (lambda f: [str(write_npz(f)), "--exploration", "2"], "exploration 2.0 is not in"),
    (lambda f: [str(write_npz(f)), "--seeds", "0"], "--seeds and --batch must be 1 or more"),
    (lambda f: [str(write_npz(f)), "--held-out", "1"], "--held-out must be in"),
    (lambda f: [str(write_npz(f)), "--jobs", "-1"], "--jobs must be 0"),
    (lambda f: [str(write_npz(f, y=np.zeros(150, dtype=int)))], "have one label"),
    (lambda f: [str(write_npz(f, y=np.zeros(149, dtype=int)))], "150 rows of x and 149 of y"),
    (lambda f: [str(write_npz(f, y=np.full(150, np.nan)))], "row 0 has no label"),
    (lambda f: [str(write_npz(f, x=np.full((150, 2), np.nan)))], "item 0 of the pool of points holds NaN"),
    (lambda f: [str(write_npz(f, z=np.ones(1), x=np.array(["a"] * 150)))], "x must be numbers"),
    (lambda f: [str(write_rows(f, ".csv")), "--label", "team", "--encoder", "minilm-l6"], "'minilm-l6' is for text-classification"),
]


@pytest.mark.parametrize(("words", "sentence"), REFUSED)
def test_bad_input_is_one_sentence_and_exit_status_1(
    words: Callable[[Path], list[str]], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    assert main(["simulate", *words(tmp_path / "data"), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_a_pool_without_a_test_part_is_refused() -> None:
    info = Info(name="tiny", labels=("a", "b"), encoder="")
    x, y = np.ones((4, 2), dtype=np.float32), np.array([0, 1, 0, 1])
    with pytest.raises(InvalidInputError, match="the test part of tiny has 0 items"):
        check_data(Data(info, x, y, x[:0], y[:0]))


# ---------------------------------------------------------------- what it writes


def test_a_simulation_writes_its_figures_and_does_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_npz(tmp_path)
    words = ["simulate", str(path), "--strategies", "auto", "--seeds", "2", "--budget", "50", "--jobs", "1", "--out"]
    assert main([*words, str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "beside random" in said and "auto" in said
    report = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert [one["strategy"] for one in report["strategies"]] == ["random", "auto"]
    assert [point["labels"] for point in report["strategies"][1]["curve"]] == [10, 20, 30, 40, 50]
    assert report["full_score"] > 0.9 and report["items"] + report["test_items"] == 150
    from pyarrow import parquet

    assert parquet.read_table(tmp_path / "out" / "curves.parquet").num_rows == 2 * 2 * 5 + 1
    picture = ElementTree.parse(tmp_path / "out" / "curves.svg").getroot()
    assert len(picture.findall("{http://www.w3.org/2000/svg}polyline")) == 2

    before = {name: (tmp_path / "out" / name).read_bytes() for name in ("report.json", "curves.svg")}
    monkeypatch.setattr("learning.cycle.cycle.Cycle.step", lambda _: pytest.fail("a finished cell was worked again"))
    assert main([*words, str(tmp_path / "out")]) == 0
    assert before == {name: (tmp_path / "out" / name).read_bytes() for name in before}


def test_the_benchmark_says_the_same_as_the_command(tmp_path: Path) -> None:
    ground = bench_saved_labels.Ground(str(write_npz(tmp_path)), 0, 10, 30)
    args = argparse.Namespace(out=tmp_path, strategies="auto", seeds=2, exploration=0.1, jobs=1)
    report = bench_saved_labels.measure(ground, args)
    lines = bench_saved_labels.markdown(report).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| strategy", "| ---", "| random", "| auto"]
    assert {line.count("|") for line in lines[2:]} == {10}
    assert (tmp_path / "points.svg").is_file()


def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_npz(tmp_path)
    words = ["simulate", str(path), "--strategies", "auto", "--seeds", "1", "--budget", "50", "--jobs", "1", "--out"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        patch.setattr("scripts.simulation.command._cell_progress", lambda *_: nullcontext(PressingCtrlC()))
        assert main([*words, str(tmp_path / "out")]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "out" / "report.json").exists()
    assert list((tmp_path / "out").rglob("round-*.json")), "what was done is kept"
    assert main([*words, str(tmp_path / "out")]) == 0
    for name in ("report.json", "curves.svg"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
