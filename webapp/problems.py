"""Errors as answers: status, code, sentence and way out; JSON for the API, a page for people.

Owns the table from error to HTTP. Must never show a traceback. Called by `create_app`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import flask
import msgspec
from flask_limiter import RateLimitExceeded
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from labelloop.errors import InternalError, LabelloopError

logger = logging.getLogger(__name__)
STATUS = {
    "unreachable": 503,
    "deadline": 504,
    "not_ready": 503,
    "no_worker": 503,
    "busy": 429,
    "storage_full": 507,
    "invalid_input": 422,
    "unsafe_link": 422,
    "unreadable_item": 422,
    "too_large": 413,
    "not_found": 404,
    "conflict": 409,
    "stale_epoch": 409,
    "unauthenticated": 401,
    "forbidden": 403,
    "integrity": 500,
    "cancelled": 409,
    "settings": 500,
    "internal": 500,
}
_CODES = {400: "invalid_input", 401: "unauthenticated", 403: "forbidden", 404: "not_found", 405: "invalid_input"}
_CODES |= {409: "conflict", 413: "too_large", 415: "invalid_input", 422: "invalid_input", 429: "busy"}
_WAY_OUT = {
    "unreachable": "Nothing was lost: try again in a moment.",
    "deadline": "Nothing was lost: try again in a moment.",
    "not_ready": "Try again when the cluster is up; the project page says what is missing.",
    "no_worker": "Ask operations to start a node of that role.",
    "busy": "Wait a moment and send less at a time.",
    "storage_full": "Ask operations for room; nothing was half written.",
    "invalid_input": "Correct the named value and send again.",
    "too_large": "Send it in smaller pieces.",
    "not_found": "Check the name in the address.",
    "conflict": "Look at what is there now, then decide.",
    "unauthenticated": "Log in, or send a valid API token.",
    "forbidden": "Ask an owner of the project or an admin.",
}
PageRenderer = Callable[[int, str], Any]


def install(app: flask.Flask, page: PageRenderer | None = None) -> None:
    """Answer every error of `app`; `page` draws one for people, given status and sentence."""
    app.register_error_handler(LabelloopError, lambda exc: _answer(exc.code, str(exc), STATUS.get(exc.code, 500), page))
    app.register_error_handler(CSRFError, lambda exc: _answer("forbidden", _csrf_sentence(exc), 403, page))
    app.register_error_handler(RecursionError, lambda exc: _too_deep(exc, page))
    app.register_error_handler(HTTPException, lambda exc: _http(exc, page))
    app.register_error_handler(Exception, lambda exc: _defect(exc, page))


def _csrf_sentence(exc: CSRFError) -> str:
    return (
        f"{exc.description} Send the session's token in the header X-CSRFToken (GET /api/v1/session tells it), or use an API token."
    )


def _http(exc: HTTPException, page: PageRenderer | None) -> Any:
    status = exc.code or 500
    data = getattr(exc, "data", None) or {}
    sentence = _fields(data["messages"]) if isinstance(data, dict) and "messages" in data else str(exc.description)
    response = _answer(_CODES.get(status, "internal"), sentence, status, page)
    if isinstance(exc, RateLimitExceeded) and exc.limit is not None:
        response.headers["Retry-After"] = str(exc.limit.limit.get_expiry())
    for name, value in exc.get_headers():
        if name.lower() in ("location", "retry-after", "allow"):
            response.headers[name] = value
    return response if status >= 400 else exc


def _too_deep(exc: RecursionError, page: PageRenderer | None) -> Any:
    """Answer a body that is nested beyond what the reader of JSON follows; without such a body it is a defect like any other."""
    if not flask.request.is_json:
        return _defect(exc, page)
    logger.warning("%s %s brought JSON nested too deep", flask.request.method, flask.request.path)
    return _answer("invalid_input", "the body is nested too deep: send plain objects and lists", 422, page)


def _fields(messages: Any, path: str = "") -> str:
    if isinstance(messages, dict):
        names = ((f"{path}.{name}" if path and name not in ("json", "query", "form") else str(name)) for name in messages)
        return " ".join(
            _fields(value, "" if name in ("json", "query", "form", "files") else name)
            for name, value in zip(names, messages.values(), strict=True)
        )
    text = " ".join(map(str, messages)) if isinstance(messages, list) else str(messages)
    return f"{path}: {text}" if path else text


def _defect(exc: Exception, page: PageRenderer | None) -> Any:
    logger.error("a defect while answering %s %s", flask.request.method, flask.request.path, exc_info=exc)
    return _answer(InternalError.code, "something is wrong in the app; its log has the details", 500, page)


def _answer(code: str, sentence: str, status: int, page: PageRenderer | None) -> Any:
    request = flask.request
    if page is not None and not request.path.startswith("/api/") and request.accept_mimetypes.accept_html:
        return flask.make_response(page(status, sentence), status)
    body = {"code": code, "message": sentence, "way_out": _WAY_OUT.get(code, "See the app's log, or ask whoever runs it.")}
    return Response(msgspec.json.encode(body), status, mimetype="application/json")
