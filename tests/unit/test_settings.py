"""Settings explain themselves, refuse what they do not know, and survive the trip to a child process."""

from __future__ import annotations

from pathlib import Path

import pytest

from labelloop.errors import SettingsError
from labelloop.settings import Settings, environment_of, read_settings
from scripts.settings_page import PAGE, settings_page


def test_every_setting_is_on_the_page_with_its_default_and_sentence() -> None:
    assert PAGE.read_text(encoding="utf-8") == settings_page(), "run python -m scripts.settings_page"


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "labelloop.toml"
    file.write_text("[web]\nport = 9000\nhost = '127.0.0.9'\n")
    settings = read_settings(file, {"LABELLOOP_WEB_PORT": "9001"})
    assert (settings.web.port, settings.web.host) == (9001, "127.0.0.9")


def test_settings_reach_a_child_process_unchanged() -> None:
    settings = read_settings(None, {"LABELLOOP_INTAKE_ALLOWED_FOLDERS": "/a,/b", "LABELLOOP_TRAIN_GROWTH": "0.25"})
    assert read_settings(None, environment_of(settings)) == settings
    assert settings.intake.allowed_folders == ("/a", "/b")


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"LABELLOOP_WEB_PROT": "1"}, "prot"),
        ({"LABELLOOP_NOTHING_AT_ALL": "1"}, "LABELLOOP_NOTHING_AT_ALL"),
        ({"LABELLOOP_WEB_PORT": "many"}, "web.port"),
        ({"LABELLOOP_TRAIN_GROWTH": "-1"}, "train.growth"),
        ({"LABELLOOP_TRAIN_TASK_LIMIT_S": "90"}, "visibility_timeout"),
    ],
)
def test_a_bad_setting_is_named(environment: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        read_settings(None, environment)


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("[web\n")
    with pytest.raises(SettingsError, match=r"x\.toml"):
        read_settings(file, {})


def test_defaults_need_no_file() -> None:
    assert read_settings(None, {}) == Settings()
