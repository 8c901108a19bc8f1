"""What a test that presses Ctrl-C puts before its command: a shell's background job, and all it starts, ignores it otherwise."""

from __future__ import annotations

INTERRUPTIBLE = ("env", "--default-signal=INT")
