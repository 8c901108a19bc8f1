"""What the API answers, as structs, and how they become JSON.

Owns the field names of every reply; `schemas` documents them. Called by the API's views.
"""

from __future__ import annotations

from typing import Any

import msgspec
from werkzeug.wrappers import Response

from webapp.db.imports import ImportJob, RowError
from webapp.db.leases import Leased
from webapp.db.projects import Project
from webapp.db.tallies import Tally
from webapp.db.users import User
from webapp.labelling.answers import Saved
from webapp.labelling.service import Batch
from webapp.media import MediaStore

_encoder = msgspec.json.Encoder()


def reply(value: Any, status: int = 200) -> Response:
    """Return `value` (structs, dicts, lists) as a JSON answer."""
    return Response(_encoder.encode(value), status, mimetype="application/json")


def person_reply(user: User) -> dict[str, Any]:
    """Return an account as JSON shows it."""
    return {"id": user.id, "name": user.name, "is_admin": user.is_admin, "is_active": user.is_active}


def project_reply(project: Project, tally: Tally | None, role: str | None = None) -> dict[str, Any]:
    """Return a project as JSON shows it."""
    hidden = ("id", "next_position")
    out = {key: value for key, value in msgspec.structs.asdict(project).items() if key not in hidden}
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
    out["draft"] = {"labels": draft.labels, "confidence": round(draft.confidence, 4), "version": draft.version} if draft else None
    return out


def content_reply(project: Project, media: MediaStore, link: str | None, content: str | None) -> dict[str, Any]:
    """Return what a person looks at."""
    if link is None:
        text = content or ""
        return {"row": msgspec.Raw(text.encode())} if project.category == "tables" else {"text": text}
    if project.category == "image-classification":
        url = media.url_of(project.slug, link)
        return {"media": url} if url else {"link": link}
    return {"link": link}


def batch_reply(project: Project, media: MediaStore, batch: Batch) -> dict[str, Any]:
    """Return leased items, and why there are none."""
    items = [item_reply(project, media, leased) for leased in batch.items]
    return {"items": items, "reason": batch.reason, "stop": batch.reason if not items else ""}


def saved_reply(saved: Saved) -> dict[str, Any]:
    """Return a saved answer as JSON shows it."""
    return {
        "item_id": saved.item_id,
        "revision": saved.revision,
        "labels": saved.labels,
        "is_corrected": saved.is_corrected,
        "is_repeat": saved.is_repeat,
    }


def import_reply(job: ImportJob, errors: tuple[RowError, ...] = ()) -> dict[str, Any]:
    """Return an import as JSON shows it; `share` is how far it is, in [0, 1]."""
    share = 1.0 if job.state == "done" else job.offset_bytes / job.total_bytes if job.total_bytes else 0.0
    return {
        "id": job.id,
        "kind": job.kind,
        "name": job.name,
        "state": job.state,
        "share": round(min(share, 1.0), 4),
        "rows_ok": job.added + job.known,
        "rows_added": job.added,
        "rows_known": job.known,
        "rows_failed": job.failed,
        "reason": job.reason,
        "created_at": job.created_at,
        "updated_at": job.updated_at,
        "errors": errors,
    }
