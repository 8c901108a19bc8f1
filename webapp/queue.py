"""The ranked queue: which item is asked next, in Valkey or Redis; the only user of redis-py.

Owns the keys `labelloop:<project>:*`. The queue is a bounded head of the order and a hint: the database decides who holds what, so
everything here may be lost at any moment and is rebuilt from the database (`is_built` says whether it must be). The score that is
written is the score that orders the queue. Each call is O(log n). A claim moves items into `out` with their score and an expiry;
what expires returns to its place. While a new order is built, `gone` collects what is labelled meanwhile. Called by
`webapp.labelling` (claim, settle, give back) and by whoever rebuilds (`swap`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import redis

from labelloop.errors import UnreachableError
from labelloop.settings import Settings

logger = logging.getLogger(__name__)
_CHUNK = 2000
_EXPIRED_AT_ONCE = 200
_BUILD_S = 300

_CLAIM = """
local queue, out, scores, built = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
if redis.call('EXISTS', built) == 0 then return {0} end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', out, '-inf', ARGV[1], 'LIMIT', 0, ARGV[4])) do
  local score = redis.call('HGET', scores, id)
  if score then redis.call('ZADD', queue, score, id) end
  redis.call('ZREM', out, id); redis.call('HDEL', scores, id)
end
local popped = redis.call('ZPOPMAX', queue, ARGV[3])
local ids = {1}
for i = 1, #popped, 2 do
  redis.call('ZADD', out, ARGV[2], popped[i]); redis.call('HSET', scores, popped[i], popped[i + 1])
  ids[#ids + 1] = popped[i]
end
return ids
"""
_GIVE_BACK = """
local score = redis.call('HGET', KEYS[3], ARGV[1]) or ARGV[2]
redis.call('ZREM', KEYS[2], ARGV[1]); redis.call('HDEL', KEYS[3], ARGV[1])
if score ~= '' then redis.call('ZADD', KEYS[1], score, ARGV[1]) end
"""
_SETTLE = """
redis.call('ZREM', KEYS[1], unpack(ARGV)); redis.call('ZREM', KEYS[2], unpack(ARGV)); redis.call('HDEL', KEYS[3], unpack(ARGV))
if redis.call('EXISTS', KEYS[5]) == 1 then redis.call('SADD', KEYS[5], unpack(ARGV)) end
"""
_SWAP = """
local queue, out, scores, built, gone, new = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
for _, id in ipairs(redis.call('SMEMBERS', gone)) do redis.call('ZREM', new, id) end
redis.call('DEL', gone)
for _, id in ipairs(redis.call('ZRANGE', out, 0, -1)) do
  local score = redis.call('ZSCORE', new, id)
  if score then redis.call('HSET', scores, id, score); redis.call('ZREM', new, id) end
end
if redis.call('EXISTS', new) == 1 then redis.call('RENAME', new, queue) else redis.call('DEL', queue) end
redis.call('SET', built, ARGV[1])
"""


class RankedQueue:
    """The queues of all projects in one Valkey. Threads share it; made anew in each process."""

    def __init__(self, find_url: Callable[[], str]) -> None:
        self._find_url = find_url
        self._lock = threading.Lock()
        self._local = threading.local()
        self._clients: list[Any] = []
        scripts = {"claim": _CLAIM, "give_back": _GIVE_BACK, "settle": _SETTLE, "swap": _SWAP}
        self._scripts = {name: redis.commands.core.Script(redis.Redis(), text) for name, text in scripts.items()}

    @property
    def _redis(self) -> Any:
        """This thread's own connection to the server's address of the moment: the embedded server may come back on another port."""
        url = self._find_url()
        if getattr(self._local, "url", None) != url:
            client = redis.Redis.from_url(
                url, decode_responses=True, socket_timeout=5.0, socket_connect_timeout=1.0, single_connection_client=True
            )
            with self._lock:
                self._clients.append(client)
            self._local.client, self._local.url = client, url
        return self._local.client

    def _run(self, script: str, keys: Sequence[str], *args: object) -> Any:
        with _renamed():
            return self._scripts[script](keys=keys, args=args, client=self._redis)

    def claim(self, project: int, n: int, now: float, expires_at: float) -> list[str] | None:
        """Take up to `n` items off the head until `expires_at`; None = the queue was never built or is lost."""
        answer = self._run("claim", _keys(project), now, expires_at, n, _EXPIRED_AT_ONCE)
        return [str(item) for item in answer[1:]] if int(answer[0]) else None

    def settle(self, project: int, item_ids: Sequence[str]) -> None:
        """Forget items that are labelled, wherever they stand."""
        if item_ids:
            self._run("settle", _keys(project), *item_ids)

    def hold(self, project: int, item_id: str, expires_at: float, score: float) -> None:
        """Note that an item is out until `expires_at`, to come back with `score` (an undo, a lease taken past the queue)."""
        queue, out, scores, _, _ = _keys(project)
        with _renamed(), self._redis.pipeline(transaction=True) as pipe:
            pipe.zrem(queue, item_id)
            pipe.zadd(out, {item_id: expires_at})
            pipe.hsetnx(scores, item_id, score)
            pipe.execute()

    def give_back(self, project: int, item_id: str, score: float | None = None) -> None:
        """Return an item to its place before its lease ends; `score` is used where the queue knows none."""
        self._run("give_back", _keys(project), item_id, "" if score is None else score)

    def begin_build(self, project: int) -> None:
        """Collect from now on what is labelled, until the next `swap`; call it before the database is asked what is open."""
        gone = _keys(project)[4]
        with _renamed(), self._redis.pipeline(transaction=True) as pipe:
            pipe.sadd(gone, "")
            pipe.expire(gone, _BUILD_S)
            pipe.execute()

    def swap(self, project: int, generation: str, order: Iterable[tuple[str, float]]) -> None:
        """Replace the whole order in one step, highest score first; items that are out keep their lease and get their new score."""
        new = f"labelloop:{project}:new:{generation}"
        with _renamed():
            client = self._redis
            client.delete(new)
            for chunk in _chunks(order):
                client.zadd(new, chunk)
        self._run("swap", [*_keys(project), new], generation)

    def extend(self, project: int, order: Mapping[str, float]) -> None:
        """Put more items into a built queue; one that stands there already keeps its score."""
        with _renamed():
            for chunk in _chunks(order.items()):
                self._redis.zadd(_keys(project)[0], chunk, nx=True)

    def is_built(self, project: int) -> bool:
        """Return whether the queue exists (an empty one does): False after a flush."""
        with _renamed():
            return bool(self._redis.exists(_keys(project)[3]))

    def generation(self, project: int) -> str:
        """Return the mark of the order that stands in the queue, '' = none."""
        with _renamed():
            return self._redis.get(_keys(project)[3]) or ""

    def size(self, project: int) -> int:
        """Return how many items wait."""
        with _renamed():
            return int(self._redis.zcard(_keys(project)[0]))

    def head(self, project: int, n: int) -> list[str]:
        """Return the next `n` items without taking them."""
        with _renamed():
            return [str(item) for item in self._redis.zrange(_keys(project)[0], 0, n - 1, desc=True)]

    def may_rebuild(self, project: int, for_s: float = 30.0) -> bool:
        """Return whether the caller is the one that rebuilds now; nobody else is told so for `for_s` seconds."""
        with _renamed():
            return bool(self._redis.set(f"labelloop:{project}:rebuilding", "1", nx=True, ex=int(for_s) or 1))

    def end_rebuild(self, project: int) -> None:
        """Let the next one rebuild."""
        with _renamed():
            self._redis.delete(f"labelloop:{project}:rebuilding")

    def drop(self, project: int) -> None:
        """Forget a project."""
        with _renamed():
            self._redis.delete(*_keys(project))

    def ping(self) -> None:
        """Raise UnreachableError when the server does not answer."""
        with _renamed():
            self._redis.ping()

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            for client in self._clients:
                client.close()
            self._clients.clear()
        self._local = threading.local()


def url_finder(settings: Settings) -> Callable[[], str]:
    """Return how to find the server: `web.redis_url`, or logical database 2 of the machine's embedded broker, whose address is in
    the file `broker/url` of the state folder and may change."""
    if settings.web.redis_url:
        return lambda: settings.web.redis_url
    file = Path(settings.state_dir) / "broker" / "url"

    def find() -> str:
        try:
            return file.read_text().strip() + "/2"
        except OSError as exc:
            raise UnreachableError(f"there is no ranked queue: set web.redis_url, or start `labelloop broker` ({file})") from exc

    return find


def _keys(project: int) -> list[str]:
    return [f"labelloop:{project}:{part}" for part in ("queue", "out", "scores", "built", "gone")]


def _chunks(order: Iterable[tuple[str, float]]) -> Iterator[dict[str, float]]:
    chunk: dict[str, float] = {}
    for item_id, score in order:
        chunk[item_id] = float(score)
        if len(chunk) >= _CHUNK:
            yield chunk
            chunk = {}
    if chunk:
        yield chunk


@contextlib.contextmanager
def _renamed() -> Iterator[None]:
    try:
        yield
    except (redis.exceptions.RedisError, OSError) as exc:
        raise UnreachableError(f"the ranked queue does not answer: {exc}") from exc
