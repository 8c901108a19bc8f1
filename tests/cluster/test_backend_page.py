"""The example of docs/backend.md, as it stands on the page, against a real cluster."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from labelloop.messages import FormRequest
from tests.cluster.two_managers import CHECKOUT, running_cluster

pytestmark = pytest.mark.slow


def test_the_example_of_the_page_joins_labels_predicts_and_ranks(tmp_path: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", (CHECKOUT / "docs" / "backend.md").read_text(), re.DOTALL)
    assert len(examples) == 1
    (tmp_path / "backend.py").write_text(examples[0])
    with running_cluster(tmp_path / "cluster", "scripts") as cluster:
        cluster.registry.form(FormRequest(train=1, inference=1), deadline_s=120)
        (tmp_path / "token").write_text(cluster.authority.create_token("client"))
        done = _run(tmp_path, cluster.registry_port)
        again = _run(tmp_path, cluster.registry_port)
    for output in (done, again):
        assert "durable: 80 refused: []" in output
        assert re.search(r"labels: 80 serving: model-\S+ next: ", output)
        assert re.findall(r"^new-\d (\w+)", output, re.MULTILINE) == ["glad", "sad", "glad"]
        assert "job: done 3 items" in output
        assert re.search(r"ask next: \('new-\d', 'new-\d'\) by margin", output)


def _run(folder: Path, port: int) -> str:
    command = [sys.executable, "backend.py", f"127.0.0.1:{port}", "token"]
    environment = {"PYTHONPATH": str(CHECKOUT), "PYTHONWARNINGS": "error"}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout
