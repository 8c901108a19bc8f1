"""How a webhook's message is signed, and how whoever gets it checks that.

Owns the two headers and the key of each webhook. A key is derived from the app's own key and a salt, so that the database and its
backups hold none. Must never log a key. Called by `webapp.webhooks.service` (which shows a key once) and `webapp.webhooks.sender`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

ID, TIMESTAMP, SIGNATURE = "Labelloop-Id", "Labelloop-Timestamp", "Labelloop-Signature"
_PREFIX = "whsec_"


def secret_of(app_key: bytes, webhook_id: int, salt: str) -> str:
    """Return the key that a webhook's receiver was shown."""
    made = hmac.digest(app_key, f"webhook {webhook_id} {salt}".encode(), hashlib.sha256)
    return _PREFIX + base64.urlsafe_b64encode(made).decode().rstrip("=")


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a message: HMAC-SHA256 over timestamp, a dot and the body, in hex behind `v1=`."""
    return "v1=" + hmac.digest(secret.encode(), str(timestamp).encode() + b"." + body, hashlib.sha256).hex()


def headers_of(secret: str, uid: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers of one message."""
    return {
        "Content-Type": "application/json",
        "User-Agent": "labelloop-webhook/1",
        ID: uid,
        TIMESTAMP: str(timestamp),
        SIGNATURE: sign(secret, timestamp, body),
    }
