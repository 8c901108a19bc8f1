"""The error tree: what can go wrong, as types, and how an error crosses the wire.

Owns every error code. Must never import another module of the project. Called by all rooms.

    LabelloopError
    ├── RetryableError               the same call may succeed later; nothing was lost
    │   ├── UnreachableError         unreachable       peer, broker or database does not answer
    │   ├── DeadlineError            deadline          no answer within the caller's deadline
    │   ├── NotReadyError            not_ready         a role, model or registry is not up yet
    │   ├── NoWorkerError            no_worker         no worker of the needed role is online
    │   ├── BusyError                busy              a cap on connections, rate or queue was reached
    │   └── StorageFullError         storage_full      the datastore has no room
    └── PermanentError               repeating the call cannot help
        ├── InvalidInputError        invalid_input     a value is malformed or out of range
        │   ├── UnsafeLinkError      unsafe_link       a link the SSRF guard refuses
        │   ├── UnreadableItemError  unreadable_item   bytes that are not what the category needs
        │   └── TooLargeError        too_large         over a size, pixel, frame or time limit
        ├── NotFoundError            not_found         task, run, version, job or item does not exist
        ├── ConflictError            conflict          same identity with other content
        │   └── StaleEpochError      stale_epoch       an order older than one already applied
        ├── UnauthenticatedError     unauthenticated   no certificate or token, or a wrong, expired, revoked one
        ├── ForbiddenError           forbidden         a known peer that may not do this
        ├── IntegrityError           integrity         a checksum or schema does not match
        ├── CancelledError           cancelled         a person cancelled the work
        ├── SettingsError            settings          a setting is unknown or out of range
        └── InternalError            internal          a defect: the log of the peer has the traceback
"""

from __future__ import annotations

from typing import ClassVar


class LabelloopError(Exception):
    """Root of the tree; `code` is what crosses the wire, the message is one sentence for a person."""

    code: ClassVar[str] = "internal"
    is_retryable: ClassVar[bool] = False


class RetryableError(LabelloopError):
    """The same call may succeed later; nothing was lost."""

    code = "retryable"
    is_retryable = True


class UnreachableError(RetryableError):
    """A peer, broker or database does not answer."""

    code = "unreachable"


class DeadlineError(RetryableError):
    """No answer came within the caller's deadline."""

    code = "deadline"


class NotReadyError(RetryableError):
    """A role, model or registry is not up yet."""

    code = "not_ready"


class NoWorkerError(RetryableError):
    """No worker of the needed role is online."""

    code = "no_worker"


class BusyError(RetryableError):
    """A cap on connections, rate or queue length was reached."""

    code = "busy"


class StorageFullError(RetryableError):
    """The datastore has no room; nothing was half written."""

    code = "storage_full"


class PermanentError(LabelloopError):
    """Repeating the call cannot help."""

    code = "permanent"


class InvalidInputError(PermanentError):
    """A value is malformed or out of range; the message names it and the way out."""

    code = "invalid_input"


class UnsafeLinkError(InvalidInputError):
    """A link that the SSRF guard refuses to fetch."""

    code = "unsafe_link"


class UnreadableItemError(InvalidInputError):
    """The bytes behind a link are not what the task's category needs."""

    code = "unreadable_item"


class TooLargeError(InvalidInputError):
    """Over a size, pixel, frame or time limit."""

    code = "too_large"


class NotFoundError(PermanentError):
    """The named task, run, version, job or item does not exist."""

    code = "not_found"


class ConflictError(PermanentError):
    """The same identity was used before with other content."""

    code = "conflict"


class StaleEpochError(ConflictError):
    """An order older than one already applied."""

    code = "stale_epoch"


class UnauthenticatedError(PermanentError):
    """No certificate or token, or a wrong, expired or revoked one."""

    code = "unauthenticated"


class ForbiddenError(PermanentError):
    """A known peer that may not do this."""

    code = "forbidden"


class IntegrityError(PermanentError):
    """A checksum or a schema number does not match; the thing is refused, not repaired."""

    code = "integrity"


class CancelledError(PermanentError):
    """A person cancelled the work."""

    code = "cancelled"


class SettingsError(PermanentError):
    """A setting is unknown, of the wrong type or out of range."""

    code = "settings"


class InternalError(PermanentError):
    """A defect on the other side; its log has the traceback, the wire never does."""

    code = "internal"


def _tree(root: type[LabelloopError]) -> dict[str, type[LabelloopError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


BY_CODE: dict[str, type[LabelloopError]] = {**_tree(LabelloopError), "internal": InternalError}


def from_code(code: str, reason: str) -> LabelloopError:
    """Return the error that a peer reported as `code` with one sentence.

    An unknown code (a newer peer) becomes `InternalError` and keeps the code in the sentence.
    """
    kind = BY_CODE.get(code)
    if kind is None:
        return InternalError(f"{reason} (unknown error code {code!r})")
    return kind(reason)
