"""The labelling app from Python: projects, items, labels, imports, exports, versions and people, typed.

Owns the structs that the API's JSON becomes; a field that a newer app adds is let through. Must never import more than the base
install has. Called by scripts of users (docs/api.md has an example that a test runs).

    with WebClient("http://localhost:8080", token="llp_...") as app:
        birds = app.project("birds")
        for item in birds.take(10):
            birds.answer(item, ["owl"])
"""

from __future__ import annotations

import secrets
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from labelloop.errors import CancelledError, DeadlineError, RetryableError
from labelloop.web_http import Connection

T = TypeVar("T")
_POLL_S = 0.5
_STREAM = {"Accept": "text/event-stream"}


class Draft(msgspec.Struct, frozen=True):
    """What a model says of an item. `confidence` in [0, 1]."""

    labels: tuple[str, ...]
    confidence: float
    version: str
    marks: tuple[dict[str, Any], ...] = ()
    relations: tuple[dict[str, Any], ...] = ()
    number: float | None = None
    text: str | None = None


class Item(msgspec.Struct, frozen=True):
    """An item in one's hands until `expires_at` (seconds since 1970): its content is `text`, `row`, `media` or `link`."""

    item_id: str
    lease: str
    expires_at: float
    name: str = ""
    text: str | None = None
    row: dict[str, Any] | None = None
    media: str | None = None
    link: str | None = None
    pair: dict[str, Any] | None = None
    draft: Draft | None = None


class Saved(msgspec.Struct, frozen=True):
    """A saved answer. `is_repeat`: an earlier call with the same key had saved it."""

    item_id: str
    revision: int
    labels: tuple[str, ...]
    is_corrected: bool = False
    is_repeat: bool = False


class RefusedRow(msgspec.Struct, frozen=True):
    """A row that did not go in, and why."""

    line: int
    name: str
    reason: str


class Added(msgspec.Struct, frozen=True):
    """What became of items: new ones, those that were there, those refused."""

    added: int
    known: int
    failed: tuple[RefusedRow, ...]


class Import(msgspec.Struct, frozen=True):
    """An import: `state` is waiting, running, done or failed; `share` in [0, 1] says how far it is."""

    id: int
    name: str
    state: str
    share: float
    rows_added: int
    rows_known: int
    rows_failed: int
    reason: str = ""
    errors: tuple[RefusedRow, ...] = ()

    @property
    def is_over(self) -> bool:
        """Return whether nothing more will happen."""
        return self.state in ("done", "failed")


class Event(msgspec.Struct, frozen=True):
    """Something that happened, or ('status') the state of the project now."""

    kind: str
    data: dict[str, Any]
    id: int = -1


class Member(msgspec.Struct, frozen=True):
    """A person of a project."""

    name: str
    role: str


class Version(msgspec.Struct, frozen=True):
    """A published model; `accuracy` on the held-out part."""

    version: str
    is_serving: bool = False
    accuracy: float | None = None
    labels: int = 0
    reason: str = ""


class ProjectInfo(msgspec.Struct, frozen=True):
    """A project's settings and counts."""

    slug: str
    title: str
    category: str
    kind: str
    labels: tuple[str, ...]
    is_paused: bool = False
    budget: int = 0
    target: float = 0.0
    items: int = 0
    labels_done: int = 0
    role: str = ""


class WebClient:
    """The app at `url` as the account that owns `token`; calls that may be repeated are, for `patience_s`."""

    def __init__(self, url: str, token: str = "", patience_s: float = 60.0) -> None:
        self._link = Connection(url, token, patience_s)

    def __enter__(self) -> WebClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    @classmethod
    def log_in(cls, url: str, name: str, password: str, label: str = "script") -> WebClient:
        """Return a client with a new API token of an account. Raises UnauthenticatedError."""
        link = Connection(url, "", 0.0)
        said = link.call("POST", "/tokens", {"name": name, "password": password, "label": label})
        link.close()
        return cls(url, str(msgspec.json.decode(said)["token"]))

    def projects(self) -> tuple[ProjectInfo, ...]:
        """Return the projects that one may see."""
        return msgspec.convert(self.ask("GET", "/projects", Any)["projects"], tuple[ProjectInfo, ...])

    def create_project(self, slug: str, category: str, labels: Sequence[str], **settings: Any) -> Project:
        """Create a project; `settings` as in docs/api.md. Raises InvalidInputError, ConflictError (the name is taken)."""
        self.ask("POST", "/projects", Any, {"slug": slug, "category": category, "labels": list(labels), **settings})
        return self.project(slug)

    def project(self, slug: str) -> Project:
        """Return a project by its name; whether it is there shows at the first call."""
        return Project(self, slug)

    def add_person(self, name: str, password: str, is_admin: bool = False) -> None:
        """Create an account; for admins."""
        self.ask("POST", "/users", Any, {"name": name, "password": password, "is_admin": is_admin})

    def people(self) -> tuple[str, ...]:
        """Return the names of all accounts; for admins."""
        return tuple(str(one["name"]) for one in self.ask("GET", "/users", Any)["users"])

    def ask(self, method: str, path: str, kind: Callable[..., T] | Any, body: Any = None, may_repeat: bool = False) -> Any:
        """Call `/api/v1` + `path` and return the JSON as `kind`; for what this client has no method for."""
        said = self._link.call(method, path, body, may_repeat)
        return msgspec.json.decode(said, type=kind) if said else None

    @property
    def link(self) -> Connection:
        """The connection, for streams and files."""
        return self._link


class Project:
    """One project. Made by `WebClient.project`."""

    def __init__(self, app: WebClient, slug: str) -> None:
        self._app, self.slug = app, slug
        self._path = f"/projects/{urllib.parse.quote(slug, safe='')}"

    def info(self) -> ProjectInfo:
        """Return settings and counts. Raises NotFoundError."""
        found: ProjectInfo = self._app.ask("GET", self._path, ProjectInfo)
        return found

    def change(self, **settings: Any) -> ProjectInfo:
        """Change settings; for owners."""
        found: ProjectInfo = self._app.ask("PATCH", self._path, ProjectInfo, settings, may_repeat=True)
        return found

    def delete(self) -> None:
        """Delete the project; for owners."""
        self._app.ask("DELETE", self._path, Any)

    def status(self) -> dict[str, Any]:
        """Return all that the project's page shows (docs/api.md names the fields)."""
        found: dict[str, Any] = self._app.ask("GET", f"{self._path}/status", dict[str, Any])
        return found

    def events(self, after: int = -1, seconds: float | None = None) -> Iterator[Event]:
        """Yield what happens and each new status, as it comes, for `seconds` (None = for ever)."""
        until_s = None if seconds is None else time.monotonic() + seconds
        while until_s is None or time.monotonic() < until_s:
            try:
                for event in _events(self._app.link.lines(f"{self._path}/events?after={after}", _STREAM)):
                    after = max(after, event.id)
                    yield event
                    if until_s is not None and time.monotonic() >= until_s:
                        return
            except RetryableError:
                time.sleep(_POLL_S)

    # ------------------------------------------------------------ items in

    def add_items(self, items: Sequence[Mapping[str, Any]]) -> Added:
        """Add up to 10,000 items {id?, text | link | row, label(s)?, name?}; one that is there stays as it is."""
        given = {"items": [dict(one) for one in items]}
        may_repeat = all(one.get("id") for one in items)
        found: Added = self._app.ask("POST", f"{self._path}/items", Added, given, may_repeat)
        return found

    def upload(self, *files: str | Path, **options: str) -> tuple[Import, ...]:
        """Queue files for import; `options` as in docs/api.md. Return the imports, which go on in the background."""
        said = self._app.link.upload(f"{self._path}/imports", [Path(file) for file in files], options)
        return msgspec.convert(msgspec.json.decode(said)["imports"], tuple[Import, ...])

    def import_(self, number: int) -> Import:
        """Return how far an import is, with its refused rows."""
        found: Import = self._app.ask("GET", f"{self._path}/imports/{number}", Import)
        return found

    def wait_for(self, job: Import, deadline_s: float = 600.0, tell: Callable[[Import], None] | None = None) -> Import:
        """Return an import when it is over; `tell` hears of its progress. Raises CancelledError (it failed), DeadlineError."""
        until_s = time.monotonic() + deadline_s
        while not (now := self.import_(job.id)).is_over:
            if tell is not None:
                tell(now)
            if time.monotonic() >= until_s:
                raise DeadlineError(f"import {job.name!r} is at {now.share:.0%} after {deadline_s:g} s: wait longer, or look later")
            time.sleep(_POLL_S)
        if now.state == "failed":
            raise CancelledError(f"import {job.name!r} failed: {now.reason}")
        return now

    # ------------------------------------------------------------ labelling

    def take(self, n: int = 1) -> tuple[Item, ...]:
        """Take the next items into one's hands; none left = ()."""
        return msgspec.convert(self._app.ask("POST", f"{self._path}/next", Any, {"n": n})["items"], tuple[Item, ...])

    def answer(
        self, item: Item | str, labels: Sequence[str], *, seconds: float | None = None, key: str = "", **value: Any
    ) -> Saved:
        """Save what one says of an item; `value` has marks, relations, number, text or is_none of kinds that have them.

        An item by its id alone is a correction. The call carries a key and is repeated until it is answered: it saves once.
        Raises InvalidInputError, ConflictError (the item is in other hands now).
        """
        item_id, lease = (item.item_id, item.lease) if isinstance(item, Item) else (item, "")
        body = {"item_id": item_id, "lease": lease, "labels": list(labels), "key": key or secrets.token_hex(12), **value}
        if seconds is not None:
            body["seconds"] = seconds
        return msgspec.convert(self._app.ask("POST", f"{self._path}/annotations", Any, body, may_repeat=True)["saved"], Saved)

    def undo(self, item_id: str) -> Item | None:
        """Take back an item's label; return the item under a new lease, None when it is in no state to be handed out."""
        found = self._app.ask("DELETE", f"{self._path}/annotations/{urllib.parse.quote(item_id, safe='')}", Any)
        return msgspec.convert(found["item"], Item | None)

    def skip(self, item: Item) -> None:
        """Give an item back without an answer."""
        self._app.ask("POST", f"{self._path}/skip", Any, {"item_id": item.item_id, "lease": item.lease})

    # ------------------------------------------------------------ labels out, models, people

    def export(self, file: str | Path, format: str = "jsonl", which: str = "labelled") -> int:
        """Write all labels into `file`, streamed; return its bytes. `which` is labelled, rules or all."""
        query = urllib.parse.urlencode({"format": format, "which": which})
        return self._app.link.download(f"{self._path}/export?{query}", Path(file))

    def versions(self) -> tuple[Version, ...]:
        """Return every published version, newest first."""
        return msgspec.convert(self._app.ask("GET", f"{self._path}/versions", Any)["versions"], tuple[Version, ...])

    def promote(self, version: str) -> None:
        """Serve a version from now on; for owners."""
        self._app.ask("POST", f"{self._path}/promote", Any, {"version": version}, may_repeat=True)

    def members(self) -> tuple[Member, ...]:
        """Return the people of the project."""
        return msgspec.convert(self._app.ask("GET", f"{self._path}/members", Any)["members"], tuple[Member, ...])

    def set_member(self, name: str, role: str = "annotator") -> None:
        """Give an account a role in the project; for owners."""
        self._app.ask("POST", f"{self._path}/members", Any, {"name": name, "role": role}, may_repeat=True)

    def drop_member(self, name: str) -> None:
        """Take a person out of the project; for owners."""
        self._app.ask("DELETE", f"{self._path}/members/{urllib.parse.quote(name, safe='')}", Any)


def _events(lines: Iterator[str]) -> Iterator[Event]:
    """Yield the events of a stream in the form of https://html.spec.whatwg.org/#event-stream-interpretation."""
    kind, data, number = "message", "", -1
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            data = value
        elif name == "id" and value.isdecimal():
            number = int(value)
        elif not line and data:
            yield Event(kind, msgspec.json.decode(data), number)
            kind, data, number = "message", "", -1
