"""The examples of docs/backend.md, as they stand on the page, against a real cluster."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from labelloop.messages import FormRequest
from tests.cluster.two_managers import CHECKOUT, running_cluster

pytestmark = pytest.mark.slow


def test_the_examples_of_the_page_join_label_predict_rank_and_label_by_rules(tmp_path: Path) -> None:
    page = (CHECKOUT / "docs" / "backend.md").read_text()
    programs = [text for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "sys.argv" in text]
    for name, text in zip(("backend.py", "rules.py"), programs, strict=True):
        (tmp_path / name).write_text(text)
    with running_cluster(tmp_path / "cluster", "scripts") as cluster:
        cluster.registry.form(FormRequest(train=1, inference=1), deadline_s=120)
        (tmp_path / "token").write_text(cluster.authority.create_token("client"))
        done = _run(tmp_path, "backend.py", cluster.registry_port, "token")
        again = _run(tmp_path, "backend.py", cluster.registry_port, "token")
        ruled = _run(tmp_path, "rules.py", cluster.registry_port)
    for output in (done, again):
        assert "durable: 80 refused: []" in output
        assert re.search(r"labels: 80 serving: model-\S+ next: ", output)
        assert re.findall(r"^new-\d (\w+)", output, re.MULTILINE) == ["glad", "sad", "glad"]
        assert "job: done 3 items" in output
        assert re.search(r"ask next: \('new-\d', 'new-\d'\) by margin", output)
    assert "all: 80% covered, by dawid-skene" in ruled
    assert "by rules: 40 refused: []" in ruled
    assert "labels: 120 of which by rules: 40" in ruled


def _run(folder: Path, name: str, port: int, *more: str) -> str:
    command = [sys.executable, name, f"127.0.0.1:{port}", *more]
    environment = {"PYTHONPATH": str(CHECKOUT), "PYTHONWARNINGS": "error"}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout
