"""What the OpenAPI page says of every call alike: which errors may come, who must say who they are, how much may be sent.

Owns the rule from a call's shape (method, path, body) to the statuses that it may answer. Must never hold a view: a new call is
described by being registered. Called by `webapp.views.api` when all calls are known; a fuzzer in the tests holds the app to it.
"""

from __future__ import annotations

from typing import Any

from webapp.problems import STATUS

OPEN = frozenset(
    {
        ("post", "/session"),
        ("post", "/users"),
        ("post", "/tokens"),
        ("post", "/registration"),
        ("post", "/password/reset"),
    }
)
CHANGES = frozenset({"post", "put", "patch", "delete"})
_PREFIX = "/api/v1"
_MEANING = {
    400: "The request is not HTTP or JSON as it should be.",
    401: "Nobody is logged in, or the token is not known.",
    403: "Known, but not allowed; or the CSRF token of the session is missing.",
    404: "No such project, item, account or job, or not for this person.",
    409: "It does not go with what is there now: a lease in other hands, a name that is taken, something that runs already.",
    413: "More than `web.max_upload_bytes`, or more rows than one call takes.",
    415: "The body is of another content type than the call takes.",
    422: "A value is malformed; the message names it.",
    429: "Too many calls; `Retry-After` says when to come back.",
    500: "A defect of the app; its log has the details.",
    503: "Something behind the app is not there now; nothing was lost.",
    504: "The cluster did not answer in time; nothing was lost.",
    507: "No room left; nothing was half written.",
}
_ANYWHERE = (401, 403, 429, 500, 503, 504)
assert set(STATUS.values()) <= set(_MEANING)


def complete(page: dict[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI object (changed in place) with each error status that an operation may answer named in it.

    The catch-all `default` goes: it would call every status documented. Replies may gain fields, requests may not.
    """
    for path, item in page["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                _describe(method, path.removeprefix(_PREFIX), "parameters" in item, operation)
    _open_replies(page)
    return page


def _open_replies(page: dict[str, Any]) -> None:
    schemas = page["components"]["schemas"]
    requests: set[str] = set()
    for item in page["paths"].values():
        for operation in item.values():
            if isinstance(operation, dict):
                _gather(operation.get("requestBody"), schemas, requests)
    for name, schema in schemas.items():
        if name not in requests and schema.get("additionalProperties") is False:
            del schema["additionalProperties"]


def _gather(part: Any, schemas: dict[str, Any], found: set[str]) -> None:
    """Add the names of the schemas that `part` refers to, directly or through another."""
    if isinstance(part, list):
        for one in part:
            _gather(one, schemas, found)
    if not isinstance(part, dict):
        return
    name = str(part.get("$ref", "")).removeprefix("#/components/schemas/")
    if name in schemas and name not in found:
        found.add(name)
        _gather(schemas[name], schemas, found)
    for one in part.values():
        _gather(one, schemas, found)


def _describe(method: str, path: str, has_path_parameters: bool, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    responses.pop("default", None)
    for status in sorted(_statuses(method, has_path_parameters, operation)):
        responses[str(status)] = _response(status)
    if (method, path) in OPEN:
        operation["security"] = []
    operation.setdefault("operationId", _name_of(method, path))


def _statuses(method: str, has_path_parameters: bool, operation: dict[str, Any]) -> set[int]:
    found = set(_ANYWHERE)
    has_path_parameters = has_path_parameters or any(one["in"] == "path" for one in operation.get("parameters", ()))
    if has_path_parameters or method in CHANGES:
        found.add(404)
    if has_path_parameters or "requestBody" in operation or "parameters" in operation:
        found |= {400, 422}
    if "requestBody" in operation:
        found |= {413, 415}
    if method in CHANGES:
        found |= {400, 409, 422, 507}
    return found


def _response(status: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    answer: dict[str, Any] = {"description": _MEANING[status], "content": {"application/json": {"schema": schema}}}
    if status == 429:
        answer["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "string"}}}
    return answer


def _name_of(method: str, path: str) -> str:
    parts = [part.strip("{}") for part in path.split("/") if part]
    return "_".join([method, *parts]).replace("-", "_")
