"""What `scripts/bench page` says of its two clocks."""

from __future__ import annotations

import pytest

from scripts.bench_page import verdicts


@pytest.mark.parametrize(
    ("first", "load", "key", "met"),
    [
        (900.0, 400.0, 20.0, {"interactive": True, "next_item": True}),
        (1100.0, 400.0, 20.0, {"interactive": False, "next_item": True}),
        (900.0, 1000.0, 51.0, {"interactive": False, "next_item": False}),
    ],
)
def test_a_page_is_quick_when_nearly_every_load_and_key_is(first: float, load: float, key: float, met: dict[str, bool]) -> None:
    told = verdicts(first, [load] * 20, [key] * 20)
    assert told["is_met"] == met
    assert told["interactive"]["cold_ms"] == first
    assert (told["interactive"]["p50_ms"], told["next_item"]["p99_ms"]) == (load, key)
    assert told["wanted"] == {"interactive_ms": 1000.0, "next_item_ms": 50.0}
