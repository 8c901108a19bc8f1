"""The rows of `bench transfer` are trainings that can be started."""

from __future__ import annotations

import pytest

from learning.algorithms import find_algorithm
from scripts.bench_transfer import ROWS
from scripts.benchmarks import list_benchmarks


@pytest.mark.parametrize("name", ROWS)
def test_each_row_names_an_algorithm_that_accepts_its_parameters(name: str) -> None:
    algorithm = find_algorithm(ROWS[name].algorithm)
    algorithm.read_parameters(ROWS[name].parameters)
    assert (algorithm.input == "features") == ROWS[name].is_frozen
    assert "transfer" in list_benchmarks()
