"""A fuzzer made from the app's own OpenAPI page: no call answers 500, nor with a status, type or body it does not name.

Calls go through WSGI in this process, with a fixed seed, as an admin (so that they get behind the door) and mostly on a project
that is there; half of them are valid by the page, half are broken on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from tests.contract.web_world import Client, Valkey, World, make_settings
from webapp.accounts import service as accounts
from webapp.db import users

EXAMPLES = 5
CHECKED = ("status_code_conformance", "content_type_conformance", "response_schema_conformance")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[World]:
    made = World(make_settings(tmp_path_factory.mktemp("fuzz"), "", valkey.url, registration="open"))
    yield made
    made.close()


class Fuzzer:
    """Calls each operation of the page with what Hypothesis makes of it, and keeps what was found wrong."""

    def __init__(self, world: World) -> None:
        self._world = world
        load_all_checks()
        self._checks = CHECKS.get_by_names(CHECKED)
        self.page = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", world.app)
        self.found: list[str] = []
        self.called: dict[str, set[int]] = {}

    def run(self) -> None:
        """Call every operation."""
        for number, result in enumerate(self.page.get_all_operations()):
            operation = result.ok()
            for mode in GenerationMode:
                self._fuzz(operation, mode, f"fuzz{number}")

    def _fuzz(self, operation: Any, mode: GenerationMode, slug: str) -> None:
        headers = {"Authorization": f"Bearer {self._new_token()}"}
        known = {"slug": self._project(slug), "name": "bob", "item_id": "i0"}
        name = f"{operation.method.upper()} {operation.path}"
        try:
            cases = operation.as_strategy(mode)
            cases.validate()
        except Exception as exc:  # nothing about this call can be broken on purpose
            if mode is GenerationMode.POSITIVE:
                raise AssertionError(f"{name}: the page cannot be read") from exc
            return

        @hypothesis.seed(20)
        @hypothesis.settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
        @hypothesis.given(case=cases, on_what_is_there=st.integers(0, 4))
        def call(case: Any, on_what_is_there: int) -> None:
            if on_what_is_there:
                case.path_parameters = {**case.path_parameters, **{k: v for k, v in known.items() if k in case.path_parameters}}
            answer = case.call(headers=headers)
            self.called.setdefault(name, set()).add(answer.status_code)
            assert answer.status_code not in (500, 501, 502), answer.text
            case.validate_response(answer, checks=self._checks)

        try:
            call()
        except hypothesis.errors.Unsatisfiable:
            return
        except (Exception, BaseExceptionGroup) as exc:
            parts = getattr(exc, "exceptions", (exc,))
            self.found.append(f"{name}: {'; '.join(str(part) for part in parts)[:1500]}")

    def _new_token(self) -> str:
        """Return a token that no earlier call has revoked, of an admin that none has locked out."""
        with self._world.database.read() as tx:
            admin = users.find_user(tx, "ada")
        assert admin is not None
        return accounts.make_token(self._world.database, admin, "fuzz")[1]

    def _project(self, slug: str) -> str:
        """Make a project of each operation's own, with items, labels and a person, unless it is still there."""
        client = Client(self._world.app, self._new_token())
        is_gone = client.raw("GET", f"/projects/{slug}").status_code == 404
        if is_gone and client.raw("POST", f"/projects/{slug}/restore").status_code >= 300:
            client.call("POST", "/projects", {"slug": slug, "category": "text-classification", "labels": ["owl", "tit"]}, 201)
            rows = [{"id": f"i{n}", "text": f"text number {n}"} for n in range(5)]
            client.call("POST", f"/projects/{slug}/items", {"items": rows})
            client.call("POST", f"/projects/{slug}/annotations", {"item_id": "i0", "labels": ["owl"]})
            client.call("POST", f"/projects/{slug}/members", {"name": "bob", "role": "annotator"}, 204)
        return slug


def test_no_call_made_from_the_openapi_page_is_answered_with_what_the_page_does_not_say(world: World) -> None:
    world.person("bob")
    fuzzer = Fuzzer(world)
    fuzzer.run()
    assert not fuzzer.found, "\n\n".join(fuzzer.found)
    got_in = [name for name, statuses in fuzzer.called.items() if statuses - {400, 401, 403, 405, 415, 422}]
    assert len(got_in) > 0.8 * len(fuzzer.called), sorted(set(fuzzer.called) - set(got_in))
