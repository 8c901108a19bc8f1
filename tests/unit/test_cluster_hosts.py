"""Decided without a docker: what `labelloop up` reads and copies, what tells a mount from a folder, where a join line goes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from cluster.hostlist import Host, read_hosts
from cluster.joinline import show_join_line
from cluster.mount import ensure_mounted, is_mounted
from cluster.up import project_files
from labelloop.errors import InvalidInputError, NotReadyError
from tests.support_signals import INTERRUPTIBLE

CHECKOUT = Path(__file__).resolve().parents[2]
HEAD = 'registry = "10.0.0.2:7600"\ndatastore = "/home/datastore"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "hosts.toml"
    path.write_text(text)
    return path


def test_a_host_takes_what_the_file_says_for_all_and_its_own_goes_first(tmp_path: Path) -> None:
    text = (
        HEAD + 'user = "ops"\nport = 2222\n[[hosts]]\naddress = "10.0.0.9"\n[[hosts]]\naddress = "gpu-2"\nname = "b"\nport = 22\n'
    )
    listed = read_hosts(write(tmp_path, text))
    assert listed.registry == "10.0.0.2:7600" and listed.token_file is None
    assert listed.hosts == (
        Host(address="10.0.0.9", datastore="/home/datastore", user="ops", port=2222),
        Host(address="gpu-2", datastore="/home/datastore", user="ops", port=22, name="b"),
    )
    assert [host.label for host in listed.hosts] == ["10.0.0.9:2222", "b"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("registry = ", "cannot read"),
        ('registry = "nowhere"\n[[hosts]]\naddress = "a"', "registry = 'nowhere'"),
        (HEAD, r"no \[\[hosts\]\] entry"),
        (HEAD + "surprise = 1", "unknown entry 'surprise'"),
        (HEAD + '[[hosts]]\nname = "a"', r"entry 1 \(no address\).*address"),
        (HEAD + '[[hosts]]\naddress = "a"\n[[hosts]]\naddress = "b"\nprot = 22', r"entry 2 \(b\).*prot"),
        (HEAD + '[[hosts]]\naddress = "a"\nport = "22"', r"entry 1 \(a\).*Expected `int`"),
        (HEAD + '[[hosts]]\naddress = "a"\nport = 70000', r"entry 1 \(a\).*70000"),
        (HEAD + '[[hosts]]\naddress = "a"\nname = "Bad_Name"', r"entry 1 \(a\).*Bad_Name"),
        (HEAD + '[[hosts]]\naddress = "a"\nip = "224.0.0.1"', r"entry 1 \(a\).*224.0.0.1"),
        (HEAD + '[[hosts]]\naddress = "-oProxyCommand=x"', "neither an IP address nor a host name"),
        (HEAD + '[[hosts]]\naddress = "a"\nfolder = "here"', "folder = 'here' is not an absolute path"),
        (HEAD + '[[hosts]]\naddress = "a"\nhost_key = "AAAA"', "host_key must be 'TYPE BASE64'"),
        (HEAD + '[[hosts]]\naddress = "a"\n[[hosts]]\naddress = "a"', "two .* have the address 'a:22'"),
        (HEAD + '[[hosts]]\naddress = "a"\nname = "x"\n[[hosts]]\naddress = "b"\nname = "x"', "two .* have the name 'x'"),
        (HEAD + '[[hosts]]\naddress = "x"\n[[hosts]]\naddress = "b"\nname = "x"', "two .* have the name 'x'"),
        (HEAD + 'token_file = "missing"\n[[hosts]]\naddress = "a"', "token_file.*missing"),
    ],
)
def test_a_wrong_hosts_file_is_one_sentence_that_names_the_entry(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        read_hosts(write(tmp_path, text))


def test_a_token_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    token = tmp_path / "node.token"
    token.touch(0o644)
    path = write(tmp_path, HEAD.replace("datastore", 'token_file = "node.token"\ndatastore', 1) + '[[hosts]]\naddress = "a"\n')
    with pytest.raises(InvalidInputError, match="chmod 600"):
        read_hosts(path)
    token.chmod(0o600)
    assert read_hosts(path).token_file == token


def test_the_files_of_a_checkout_are_those_git_tracks_without_the_tests(tmp_path: Path) -> None:
    for name in ("start.sh", "cluster/a.py", "tests/b.py", "secret.key"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    for argv in (["init", "-q"], ["add", "start.sh", "cluster", "tests"]):
        subprocess.run(["git", *argv], cwd=tmp_path, check=True)
    assert sorted(project_files(tmp_path)) == ["cluster/a.py", "start.sh"]


def test_ctrl_c_ends_up_at_once_though_a_docker_says_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        text = f'{HEAD}[[hosts]]\naddress = "127.0.0.1"\nport = {silent.getsockname()[1]}\n'
        argv = [*INTERRUPTIBLE, sys.executable, "-m", "scripts.cli", "up", str(write(tmp_path, text))]
        with subprocess.Popen(argv, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True) as up:
            silent.settimeout(60)
            with silent.accept()[0]:
                up.send_signal(signal.SIGINT)
                assert up.stderr is not None
                said = up.stderr.read()
    assert up.returncode == 130, said
    assert "connecting" in said and said.splitlines()[-1].startswith("interrupted: ") and "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("node", "--token", "the-secret", "--state", "/nowhere", "--registry", "nowhere:1"), "--datastore PATH is needed"),
        (("node", "--token=the-secret", "--surprise"), "unrecognized arguments: --surprise"),
        (("web", "--token", "the-secret", "--registry", "nowhere"), "address 'nowhere' is not 'host:port'"),
    ],
)
def test_a_token_of_a_line_that_is_refused_stays_in_no_file(tmp_path: Path, words: Sequence[str], said: str) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path), "LABELLOOP_INSTALL": "no", "LABELLOOP_VENV": sys.prefix}
    done = subprocess.run([str(CHECKOUT / "start.sh"), *words], env=env, capture_output=True, text=True, check=False)
    assert done.returncode > 0 and said in done.stderr and "the-secret" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_mount_is_told_from_a_folder_by_its_name_alone(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "36 25 0:31 / /home/data\\040store rw,relatime - fuse nas rw,user_id=0\n37 25 0:32 / /home/other rw - fuse nas rw\n"
    )
    assert is_mounted(Path("/home/data store"), table)
    assert is_mounted(Path("/home/x/../other"), table)
    assert not is_mounted(Path("/home/data store/below"), table)
    assert not is_mounted(Path("/home"), table)


def test_a_folder_that_is_no_mount_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match="is no mount: mount the datastore there first, or give the command"):
        ensure_mounted(tmp_path, "", tmp_path / "log")
    with pytest.raises(NotReadyError, match=r"ended with status 3 and .* is still no mount: no such NAS"):
        ensure_mounted(tmp_path, "echo no such NAS; exit 3", tmp_path / "log")


def test_the_join_line_s_token_goes_to_a_file_when_a_log_may_be_reading(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_join_line(tmp_path, "10.0.0.2:7600", "s3cret.abc", Path("/mnt/nas"))
    assert "s3cret" not in capsys.readouterr().out
    kept = tmp_path / "join-line"
    assert kept.read_text() == "./start.sh node --registry 10.0.0.2:7600 --token s3cret.abc --datastore /mnt/nas\n"
    assert kept.stat().st_mode & 0o777 == 0o600
