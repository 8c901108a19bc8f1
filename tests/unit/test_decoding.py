"""Structs are decoded by many threads at once from the first moment on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from labelloop.decoding import decode_json, decode_msgpack
from labelloop.messages import MachineInfo

CODE = """
import sys, threading
sys.setswitchinterval(1e-6)
from labelloop import messages as m
from labelloop.decoding import decode_json
import msgspec
request = m.InitialRequest(
    machines_info=(m.MachineInfo(hostname="a", ip="10.0.0.1", port=1),), task_category="",
    task_extra_info=m.TaskExtraInfo(labels=("a",)), task_datastore_path="", epoch=1,
)
packed, text = m.encode(request), msgspec.json.encode(request)
gate = threading.Barrier(8)
def run(number):
    gate.wait()
    for _ in range(20):
        assert (m.decode(m.InitialRequest, packed) if number % 2 else decode_json(m.InitialRequest, text)) == request
threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_the_first_messages_of_a_kind_may_come_together() -> None:
    for _ in range(8):  # without the lock about every second process dies of a segmentation fault
        done = subprocess.run(
            [sys.executable, "-c", CODE], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (done.returncode, done.stderr)


def test_what_is_no_such_struct_is_refused_as_msgspec_refuses_it() -> None:
    machine = MachineInfo(hostname="a", ip="10.0.0.1", port=1)
    assert decode_json(MachineInfo, msgspec.json.encode(machine)) == machine
    assert decode_msgpack(MachineInfo, msgspec.msgpack.encode(machine)) == machine
    for refused in (decode_json, decode_msgpack):
        with pytest.raises(msgspec.MsgspecError):
            refused(MachineInfo, b"")  # type: ignore[operator]
