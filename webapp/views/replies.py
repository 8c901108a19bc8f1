"""What the API answers, as structs, and how they become JSON.

Owns the field names of every reply; `schemas` documents them. Called by the API's views.
"""

from __future__ import annotations

from typing import Any

import msgspec
from werkzeug.wrappers import Response

from webapp.db.drafts import Draft
from webapp.db.imports import ImportJob, RowError
from webapp.db.leases import Leased
from webapp.db.projects import Project
from webapp.db.revisions import Annotation
from webapp.db.tallies import Tally
from webapp.db.users import User
from webapp.kinds.catalogue import data_of
from webapp.kinds.values import Value, more_fields
from webapp.labelling.answers import Saved
from webapp.labelling.service import NOTHING_LEFT, Batch
from webapp.media import MediaStore
from webapp.rules.review import Reviewed

_encoder = msgspec.json.Encoder()


def reply(value: Any, status: int = 200) -> Response:
    """Return `value` (structs, dicts, lists) as a JSON answer."""
    return Response(_encoder.encode(value), status, mimetype="application/json")


def person_reply(user: User) -> dict[str, Any]:
    """Return an account as JSON shows it."""
    return {"id": user.id, "name": user.name, "is_admin": user.is_admin, "is_active": user.is_active}


def project_reply(project: Project, tally: Tally | None, role: str | None = None) -> dict[str, Any]:
    """Return a project as JSON shows it."""
    hidden = ("id", "next_position", "work", "has_errands", "places", "deleted_at", "limits")
    out = {key: value for key, value in msgspec.structs.asdict(project).items() if key not in hidden}
    out |= {"is_archived": project.is_archived, "limits": project.limits_now}
    if tally is not None:
        out |= {"items": tally.items, "labels_done": tally.labels, "corrected": tally.corrected}
    return out | ({"role": role} if role else {})


def item_reply(project: Project, media: MediaStore, leased: Leased) -> dict[str, Any]:
    """Return a leased item as JSON shows it: `media`, `text`, `row` or `link`, with the draft to be corrected."""
    out: dict[str, Any] = {"item_id": leased.item_id, "lease": leased.lease_id, "expires_at": leased.expires_at}
    if leased.name:
        out["name"] = leased.name
    out |= content_reply(project, media, leased.link, leased.content)
    draft = leased.draft
    out["draft"] = draft_reply(draft) if draft else None
    if leased.note is not None:
        out["returned"] = {"comment": leased.note.comment, "by": leased.note.by, **flat(leased.note.said)}
    return out


def flat(said: Value) -> dict[str, Any]:
    """Return a value as flat JSON fields; `labels` is always among them."""
    return {"labels": said.labels, **{k: v for k, v in msgspec.to_builtins(said).items() if k != "labels"}}


def draft_reply(draft: Draft) -> dict[str, Any]:
    """Return a draft as JSON shows it: the flat fields of its value, how sure it is and who made it."""
    out = {"labels": draft.labels, "confidence": round(draft.confidence, 4), "version": draft.version}
    return out | more_fields(draft.value) if draft.value else out


def content_reply(project: Project, media: MediaStore, link: str | None, content: str | None) -> dict[str, Any]:
    """Return what a person looks at."""
    if link is None:
        text = content or ""
        data = data_of(project.category)
        if data == "pair":
            return {"pair": {side: side_reply(project, media, one) for side, one in msgspec.json.decode(text).items()}}
        return {"row": msgspec.Raw(text.encode())} if data == "row" else {"text": text}
    return _link_reply(project, media, link) if data_of(project.category) in ("image", "audio") else {"link": link}


def side_reply(project: Project, media: MediaStore, side: dict[str, str]) -> dict[str, str]:
    """Return one side of a pair: its `text`, or its `media` or `link`."""
    return side if "text" in side else _link_reply(project, media, side["link"])


def _link_reply(project: Project, media: MediaStore, link: str) -> dict[str, str]:
    url = media.url_of(project.slug, link)
    return {"media": url} if url else {"link": link}


def batch_reply(project: Project, media: MediaStore, batch: Batch) -> dict[str, Any]:
    """Return leased items, and why there are none; `stop` where that is more than that all are labelled or in somebody's hands."""
    items = [item_reply(project, media, leased) for leased in batch.items]
    return {"items": items, "reason": batch.reason, "stop": "" if items or batch.reason == NOTHING_LEFT else batch.reason}


def saved_reply(saved: Saved) -> dict[str, Any]:
    """Return a saved answer as JSON shows it."""
    return {
        "item_id": saved.item_id,
        "revision": saved.revision,
        "labels": saved.labels,
        "is_corrected": saved.is_corrected,
        "is_repeat": saved.is_repeat,
        **more_fields(saved.value),
    }


_HIDDEN = ("id", "item", "key", "lease_id", "proba", "value", "draft_value")


def revision_reply(revision: Annotation) -> dict[str, Any]:
    """Return one revision of a label as JSON shows it: the flat fields of its value, and of the draft in `draft_value`."""
    out = {name: given for name, given in msgspec.structs.asdict(revision).items() if name not in _HIDDEN}
    drafted = {"draft_value": more_fields(revision.draft_value)} if revision.draft_value else {}
    return out | more_fields(revision.value) | drafted


def import_reply(job: ImportJob, errors: tuple[RowError, ...] = ()) -> dict[str, Any]:
    """Return an import as JSON shows it; `share` is how far it is, in [0, 1], None = only the end will tell."""
    share = 1.0 if job.state == "done" else job.offset_bytes / job.total_bytes if job.total_bytes else None
    return {
        "id": job.id,
        "kind": job.kind,
        "name": job.name,
        "state": job.state,
        "share": None if share is None else round(min(share, 1.0), 4),
        "rows_ok": job.added + job.known,
        "rows_added": job.added,
        "rows_known": job.known,
        "rows_failed": job.failed,
        "reason": job.reason,
        "created_at": job.created_at,
        "updated_at": job.updated_at,
        "errors": errors,
    }


EXAMPLE_CHARS = 400
EXAMPLE_COLUMNS = 30


def preview_reply(project: Project, media: MediaStore, found: dict[str, Any]) -> dict[str, Any]:
    """Return a preview of rules as JSON shows it: items once, texts cut short."""
    shown = {}
    for place, one in found["items"].items():
        item = one["item"]
        shown[place] = {"item_id": item.item_id, "name": item.name, "known": one["known"]}
        shown[place] |= _short(content_reply(project, media, item.link, item.content))
    return found | {"items": shown}


def _short(content: dict[str, Any]) -> dict[str, Any]:
    if "row" in content:
        row = msgspec.json.decode(content["row"], type=dict[str, Any])
        return {"row": {key: str(value)[:EXAMPLE_CHARS] for key, value in list(row.items())[:EXAMPLE_COLUMNS]}}
    return {
        key: value[:EXAMPLE_CHARS] + "…" if len(value) > EXAMPLE_CHARS and key == "text" else value
        for key, value in content.items()
    }


def review_reply(project: Project, media: MediaStore, found: tuple[Reviewed, ...]) -> dict[str, Any]:
    """Return items to review as JSON shows them, each with the rules that vote on it."""
    items = [
        item_reply(project, media, one.item) | {"votes": [{"rule": rule, "label": label} for rule, label in one.votes]}
        for one in found
    ]
    return {"items": items, "reason": "" if items else "no label of rules is left to review here", "stop": ""}
