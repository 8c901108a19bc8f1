"""Interactive calls: items in, answers out, whatever happens to a worker.

Owns the cut of a call into orders and the halving of orders that end their workers. Must never hold state after the answer. Called
by `service` and `ranking` on RPC threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from labelloop.errors import InternalError
from labelloop.messages import Array, Item, ItemError, Predictions, decode
from roles.inference.asking import LOST_ATTEMPTS, Asker
from roles.inference.calls import FEATURES, PREDICT, FeatureRows, PredictWork

ORDER_ITEMS = 256


@dataclass(frozen=True)
class Interactive:
    """Scores and embeds on the interactive queue."""

    asker: Asker
    queue_name: str
    timeout_s: float

    def predict(
        self, task: str, version: str, labels: tuple[str, ...], items: Sequence[Item], has_regions: bool = False
    ) -> Predictions:
        """Return one row for each item, in order, all by `version`, and with `has_regions` what was found in each.

        Raises what `Asker.ask_all` raises.
        """
        if not items:
            return _answer(version, labels, (), (), ())
        self.asker.require_worker(self.queue_name)
        parts = self._ask(task, version, [tuple(items[i : i + ORDER_ITEMS]) for i in range(0, len(items), ORDER_ITEMS)], labels)
        if len(parts) == 1 and len(parts[0].regions) == has_regions * len(items):
            return parts[0]
        failed = tuple(error for part in parts for error in part.failed)
        answer = _answer(version, labels, tuple(item.item_id for item in items), [part.proba.data for part in parts], failed)
        if not has_regions:
            return answer
        found = [part.regions or ((),) * len(part.item_ids) for part in parts]  # nothing in an item that ended its worker
        return msgspec.structs.replace(answer, regions=tuple(one for part in found for one in part))

    def _ask(self, task: str, version: str, groups: Sequence[tuple[Item, ...]], labels: tuple[str, ...]) -> list[Predictions]:
        works = [PredictWork(call="", reply_to="", task=task, version=version, items=group) for group in groups]
        replies = self.asker.ask_all(PREDICT, self.queue_name, works, self.timeout_s)
        parts: list[Predictions] = []
        for group, reply in zip(groups, replies, strict=True):
            if reply.kind == "done":
                parts.append(decode(Predictions, reply.body))
            elif len(group) == 1:
                parts.append(_poisoned(version, labels, group[0]))
            else:
                middle = len(group) // 2
                parts.extend(self._ask(task, version, (group[:middle], group[middle:]), labels))
        return parts

    def features(self, task: str, version: str, items: Sequence[Item]) -> FeatureRows:
        """Return the raw features of the items that can be read, in order."""
        self.asker.require_worker(self.queue_name)
        work = PredictWork(call="", reply_to="", task=task, version=version, items=tuple(items))
        reply = self.asker.ask(FEATURES, self.queue_name, work, self.timeout_s)
        if reply.kind == "lost":
            raise InternalError("the items ended the workers that embedded them: send fewer, or embed them by a job first")
        return decode(FeatureRows, reply.body)


def _answer(
    version: str, labels: tuple[str, ...], ids: tuple[str, ...], data: Sequence[bytes], failed: tuple[ItemError, ...]
) -> Predictions:
    proba = Array(dtype="float32", shape=(len(ids), len(labels)), data=b"".join(data))
    return Predictions(version=version, labels=labels, item_ids=ids, proba=proba, failed=failed)


def _poisoned(version: str, labels: tuple[str, ...], item: Item) -> Predictions:
    reason = f"this item ended its worker {LOST_ATTEMPTS} times"
    failed = (ItemError(item_id=item.item_id, code=InternalError.code, reason=reason),)
    return _answer(version, labels, (item.item_id,), (bytes(4 * len(labels)),), failed)
