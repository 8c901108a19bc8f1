"""`./start.sh web` beside a registry: app and pilot run and are of the cluster, or one sentence says why not."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from labelloop.settings import Settings, WebSettings, environment_of
from tests.support_registry import World, open_world, until
from tests.support_train import free_port

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path / "registry") as world:
        yield world


def start_web(state: Path, port: int, *words: str) -> subprocess.Popen[str]:
    """Start it as a person would, with the packages that there are."""
    env = {**os.environ, **environment_of(Settings(state_dir=str(state), web=WebSettings(port=port)))}
    env |= {"LABELLOOP_INSTALL": "no", "LABELLOOP_VENV": sys.prefix}
    argv = [str(CHECKOUT / "start.sh"), "web", *words]
    return subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def page(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


@pytest.mark.slow
def test_web_joins_with_its_token_and_needs_it_no_more(world: World, tmp_path: Path) -> None:
    state, port = tmp_path / "web", free_port()
    with start_web(state, port, "--registry", world.address, "--token", world.authority.create_token("client")) as web:
        until(lambda: "labelloop" in page(port), "the app answers")
        assert stat.S_IMODE((state / "client" / "key.pem").stat().st_mode) == 0o600
        assert not (state / "client-token").exists()
        web.send_signal(signal.SIGTERM)
        said, words = web.communicate()
    assert web.returncode == 0 and f"http://127.0.0.1:{port}" in said, words
    with start_web(state, port, "--registry", world.address) as web:
        assert web.stdout is not None and f"http://127.0.0.1:{port}" in web.stdout.readline()
        web.send_signal(signal.SIGTERM)
        _, words = web.communicate()
    assert web.returncode == 0, words


@pytest.mark.parametrize("kind", ["wrong", "node"])
def test_a_token_that_does_not_admit_the_app_is_refused_in_one_sentence(world: World, tmp_path: Path, kind: str) -> None:
    good = world.authority.create_token("client")
    token = world.node_token if kind == "node" else f"{'0' * good.index('.')}{good[good.index('.') :]}"
    with start_web(tmp_path / "web", free_port(), "--registry", world.address, "--token", token) as web:
        said, words = web.communicate(timeout=120)
    assert web.returncode == 1 and said == ""
    assert words.startswith("labelloop web-stack: ") and "token" in words and words.count("\n") == 1
    assert token.partition(".")[0] not in words
    assert not [path for path in tmp_path.joinpath("web").rglob("*") if path.is_file() and token.encode() in path.read_bytes()]


@pytest.mark.slow
def test_beside_the_registry_web_needs_no_token(tmp_path: Path) -> None:
    state, port = tmp_path / "state", free_port()
    state.mkdir()
    with open_world(state / "registry") as world, start_web(state, port, "--registry", world.address) as web:
        assert web.stdout is not None and f"http://127.0.0.1:{port}" in web.stdout.readline()
        assert (state / "client" / "certificate.pem").exists() and not (state / "client-token").exists()
        web.send_signal(signal.SIGTERM)
        _, words = web.communicate()
    assert web.returncode == 0, words


def test_without_a_token_the_sentence_says_which_one_is_needed(world: World, tmp_path: Path) -> None:
    with start_web(tmp_path / "web", free_port(), "--registry", world.address) as web:
        _, words = web.communicate(timeout=120)
    assert web.returncode == 1 and "labelloop token client" in words


@pytest.mark.slow
def test_a_registry_that_is_away_keeps_no_page_from_being_served(world: World, tmp_path: Path) -> None:
    state, port = tmp_path / "web", free_port()
    token = world.authority.create_token("client")
    world.shut()
    try:
        with start_web(state, port, "--registry", world.address, "--token", token) as web:
            until(lambda: "labelloop" in page(port), "the app answers")
            assert (state / "client-token").exists()  # needed when the registry is back
            web.send_signal(signal.SIGTERM)
            _, words = web.communicate()
        assert web.returncode == 0 and "join when it answers" in words
    finally:
        world.open()
