"""Label Studio from PyPI as the rival of `scripts/bench team`: own venv, PostgreSQL of the same server, annotators with accounts.

Owns its process and the venv, which is kept for the next time. Nothing of it is imported. Called by scripts.bench_team.
"""

from __future__ import annotations

import contextlib
import http.cookiejar
import json
import os
import random
import re
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scripts import web_bench
from scripts.postgres import Postgres
from scripts.team_load import Link, RefusedError
from scripts.team_stack import LABELS

VERSION = "1.23.2"  # that of scripts/prove_label_studio
VENV = Path.home() / ".cache" / "labelloop" / "label-studio"
DATABASE = "studio"
_START_S = 600.0
_CHUNK = 5000
_CHOICES = "".join(f'<Choice value="{label}"/>' for label in LABELS)
CONFIG = (
    '<View><Text name="text" value="$text"/><Choices name="kind" toName="text" choice="single">' + _CHOICES + "</Choices></View>"
)


def prepare_venv(venv: Path, say: Callable[[str], None]) -> Path:
    """Return Label Studio's program in `venv`, installed from PyPI where that version is not there yet (minutes, 2 GiB)."""
    probe = f"import importlib.metadata as m; assert m.version('label-studio') == '{VERSION}'"
    python = venv / "bin" / "python"
    if not python.exists() or subprocess.run((str(python), "-c", probe), stderr=subprocess.DEVNULL).returncode:
        say(f"installing label-studio=={VERSION} into {venv}")
        subprocess.run((sys.executable, "-m", "venv", str(venv)), check=True)
        subprocess.run((str(venv / "bin" / "pip"), "install", "--quiet", f"label-studio=={VERSION}"), check=True)
    return venv / "bin" / "label-studio"


class StudioDesk:
    """One annotator of Label Studio: what its page does for `Submit`, a post of the annotation and a get of the next task."""

    def __init__(self, port: int, token: str, project: int) -> None:
        self._link = Link(port, {"Authorization": f"Token {token}"})
        self._project = project
        self._random = random.Random(token)

    async def first(self) -> Any:
        """Return the first task."""
        return await self._link.call("GET", f"/api/projects/{self._project}/next")

    async def submit_and_next(self, item: Any) -> tuple[str, str, Any]:
        """Label a task."""
        label = self._random.choice(LABELS)
        value = {"from_name": "kind", "to_name": "text", "type": "choices", "value": {"choices": [label]}}
        path = f"/api/tasks/{item['id']}/annotations/?project={self._project}"
        await self._link.call("POST", path, {"result": [value], "lead_time": 2.0})
        return str(item["id"]), label, await self.first()

    def close(self) -> None:
        """Hang up."""
        self._link.close()


class Studio:
    """A running Label Studio; `call` is its API as its first account."""

    def __init__(self, program: Path, folder: Path, postgres: Postgres) -> None:
        self.port, self._token, self._log = web_bench.free_port(), secrets.token_hex(20), folder / "log"
        postgres.new_database(DATABASE)
        own = {
            "DJANGO_DB": "default",
            "POSTGRE_HOST": str(postgres.folder),
            "POSTGRE_NAME": DATABASE,
            "POSTGRE_USER": "postgres",
            "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
            "LABEL_STUDIO_USERNAME": "bench@example.org",
            "LABEL_STUDIO_PASSWORD": secrets.token_hex(12),
            "LABEL_STUDIO_USER_TOKEN": self._token,
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
        }
        argv = (str(program), "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(self.port))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                (*argv, "--enable-legacy-api-token"), env={**os.environ, **own}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait(self) -> None:
        """Wait until it answers. Raises SystemExit with the end of its log."""
        until_s = time.monotonic() + _START_S
        while True:
            with contextlib.suppress(OSError):
                self.call("GET", "/health")
                return
            if time.monotonic() > until_s or self._process.poll() is not None:
                raise SystemExit(f"bench team: Label Studio does not start: {self._log.read_text(errors='replace')[-2000:]}")
            time.sleep(1)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call its API and return the JSON. Raises RefusedError."""
        headers = {"Authorization": f"Token {self._token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                said = answer.read()
        except urllib.error.HTTPError as exc:
            raise RefusedError(f"{method} {path}: {exc.code} {exc.read()[:500]!r}") from exc
        return json.loads(said) if said.startswith((b"{", b"[")) else None

    def fill(self, n_items: int, say: Callable[[str], None]) -> int:
        """Create the project with its texts; return its number."""
        project = int(self.call("POST", "/api/projects", {"title": "bench", "label_config": CONFIG})["id"])
        for start in range(0, n_items, _CHUNK):
            numbers = range(start, min(n_items, start + _CHUNK))
            texts = [{"text": f"the text of item number {n}, long enough to be one"} for n in numbers]
            self.call("POST", f"/api/projects/{project}/import", texts)
            if start % 20_000 == 0:
                say(f"Label Studio: {start} of {n_items} tasks are in")
        return project

    def hire(self, n_people: int, project: int) -> list[StudioDesk]:
        """Sign up annotators as its page does and return their desks."""
        return [StudioDesk(self.port, self._sign_up(f"person-{n}@example.org"), project) for n in range(n_people)]

    def _sign_up(self, email: str) -> str:
        jar = http.cookiejar.CookieJar()
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        base = f"http://127.0.0.1:{self.port}"
        page = browser.open(f"{base}/user/signup/", timeout=60).read().decode()
        found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        fields = {"email": email, "password": secrets.token_hex(8), "csrfmiddlewaretoken": found[1] if found else ""}
        request = urllib.request.Request(f"{base}/user/signup/", urllib.parse.urlencode(fields).encode(), {"Referer": base})
        browser.open(request, timeout=60).read()
        return str(json.loads(browser.open(f"{base}/api/current-user/token", timeout=60).read())["token"])

    def count(self, project: int) -> int:
        """Return how many annotations it has."""
        return int(self.call("GET", f"/api/projects/{project}")["total_annotations_number"])

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(60)


@contextlib.contextmanager
def running_studio(venv: Path, folder: Path, postgres: Postgres, say: Callable[[str], None]) -> Iterator[Studio]:
    """Yield a Label Studio on `postgres`, stopped at the end."""
    folder.mkdir()
    studio = Studio(prepare_venv(venv, say), folder, postgres)
    try:
        studio.wait()
        yield studio
    finally:
        studio.stop()
