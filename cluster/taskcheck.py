"""Whether a task's settings make sense, and which folder a task path means: pure but for resolving symbolic links.

Must never write. Called by the manager for `initial` and `open_task`, before anything changes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from labelloop.errors import InvalidInputError
from labelloop.ids import TaskName, parse_task, parse_token
from labelloop.messages import CATEGORIES, REGION_CATEGORIES, Category, TaskExtraInfo, TaskSpec

MAX_LABELS = 10_000
MAX_LABEL_CHARS = 200


def check_spec(spec: TaskSpec) -> None:
    """Raise InvalidInputError naming the first field of a task that makes no sense."""
    parse_task(spec.task)
    check_category(spec.category)
    if spec.revision < 1:
        raise InvalidInputError(f"revision {spec.revision} of task {spec.task!r} is below 1")
    check_extra(spec.extra)
    check_kind(spec.category, spec.extra.kind)


def check_category(category: str) -> Category:
    """Return a registered category; raises InvalidInputError naming those there are."""
    if category not in CATEGORIES:
        raise InvalidInputError(f"task_category {category!r} is not registered; there are: {', '.join(CATEGORIES)}")
    return cast(Category, category)


def check_kind(category: str, kind: str) -> None:
    """Raise InvalidInputError when labels of `kind` are not what people give to items of `category`."""
    has_regions = category in REGION_CATEGORIES
    if has_regions and kind != "regions":
        raise InvalidInputError(f"kind {kind!r} does not fit {category}: its labels are boxes or spans, use kind 'regions'")
    if kind == "regions" and not has_regions:
        raise InvalidInputError(
            f"kind 'regions' does not fit {category}: use multiclass or multilabel, or one of {', '.join(REGION_CATEGORIES)}"
        )


def check_extra(extra: TaskExtraInfo) -> None:
    """Raise InvalidInputError naming the first field of task_extra_info that makes no sense."""
    fewest = 2 if extra.kind == "multiclass" else 1
    if not fewest <= len(extra.labels) <= MAX_LABELS:
        raise InvalidInputError(f"labels has {len(extra.labels)} entries: a {extra.kind} task needs {fewest} to {MAX_LABELS}")
    for label in extra.labels:
        if not label.strip() or len(label) > MAX_LABEL_CHARS or any(ord(c) < 32 for c in label):
            raise InvalidInputError(f"label {label[:80]!r}: use 1 to {MAX_LABEL_CHARS} characters without control characters")
    if len(set(extra.labels)) != len(extra.labels):
        twice = next(label for label in extra.labels if extra.labels.count(label) > 1)
        raise InvalidInputError(f"label {twice!r} is there twice: name each label once")
    if not 0.0 < extra.target <= 1.0:
        raise InvalidInputError(f"target {extra.target} is not an accuracy: use a number above 0 and at most 1")
    for name in ("budget", "epoch", "retrain_labels"):
        if getattr(extra, name) < 0:
            raise InvalidInputError(f"{name} is {getattr(extra, name)}: use 0 (automatic) or more")
    parse_token(extra.algorithm, "algorithm")
    parse_token(extra.encoder, "encoder")


def task_of_path(root: Path, path: str) -> TaskName:
    """Return the task whose folder `path` is: directly below `root`, relative to it or absolute.

    Raises InvalidInputError when it leads out of the root, is the root itself, lies deeper, or is no task name.
    """
    if "\0" in path:
        raise InvalidInputError(f"task_datastore_path {path!r} holds a zero byte")
    real_root = Path(os.path.realpath(root))
    asked = Path(os.path.normpath(root / path))
    real = Path(os.path.realpath(asked))
    inside = [p for p in (asked.parent, real.parent) if p in (root, real_root)]
    if not path or len(inside) != 2 or real.parent != real_root:
        raise InvalidInputError(
            f"task_datastore_path {path!r} is no folder directly below the datastore {root}: use the task's name"
        )
    return parse_task(real.name)
