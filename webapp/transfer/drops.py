"""Uploaded files whose import has ended, or never begins: away with them.

Must never delete what was not uploaded. Called by importer and uploads.
"""

from __future__ import annotations

import shutil
from pathlib import Path

INDEX_SUFFIX = ".index"  # what a reader makes beside an upload, behind the upload's name


def drop_upload(path: Path) -> None:
    """Delete an uploaded file or folder whose import has ended, with what was made beside it."""
    if not path.name.startswith("upload-"):
        return  # a source that is read where it is
    for suffix in (INDEX_SUFFIX, f"{INDEX_SUFFIX}.part"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
