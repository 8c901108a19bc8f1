"""What the registry keeps on disk: journal, wanted state, issued certificates, backup."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster.authority import Authority
from cluster.backup import Backup, restore
from cluster.journal import KEPT, Journal
from cluster.ledger import Issued, Ledger
from cluster.wanted import WantedFile
from labelloop.errors import ConflictError, IntegrityError, NotFoundError, SettingsError
from labelloop.messages import MachineInfo
from labelloop.revocation import plain_serial
from labelloop.settings import ClusterSettings

# ------------------------------------------------------------ journal


def test_the_journal_keeps_the_newest_two_hundred_over_restarts_in_a_small_private_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in range(1000):
        journal.note("order", f"epoch {number}")
    path = tmp_path / "actions.jsonl"
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(path.read_bytes().splitlines()) <= 2 * KEPT
    kept = journal.actions()
    assert [action.reason for action in kept] == [f"epoch {number}" for number in range(1000 - KEPT, 1000)]
    assert Journal(tmp_path).actions() == kept
    assert kept[-1].at.endswith("+00:00")


def test_the_same_action_twice_in_a_row_is_kept_once_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path, clock=lambda: 0.0)
    for reason in ("x", "x", "y", "x"):
        journal.note("failure", reason)
    with (tmp_path / "actions.jsonl").open("ab") as file:
        file.write(b'{"schema":1,"at":"19')
    assert [action.reason for action in Journal(tmp_path).actions()] == ["x", "y", "x"]
    assert journal.actions()[0].at == "1970-01-01T00:00:00+00:00"


def test_strangers_cannot_push_out_what_matters_but_each_is_counted(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.note("form", "by ops")
    for number in range(500):
        journal.note_refusal(f"stranger {number}")
    assert journal.actions()[0].what == "form"
    assert len(journal.actions()) < 100
    assert journal.counts["refusals"] == 500


# ------------------------------------------------------------ wanted state


def test_wanted_state_survives_and_a_broken_file_is_named_rather_than_taken_for_empty(tmp_path: Path) -> None:
    machine = MachineInfo(hostname="a", ip="10.0.0.1", port=1, type="train")
    WantedFile(tmp_path).change(epoch=7, roles={"a": "train"}, draining=("a",), removed={"b": machine})
    again = WantedFile(tmp_path).value
    assert (again.epoch, again.roles, again.draining, again.removed) == (7, {"a": "train"}, ("a",), {"b": machine})
    path = tmp_path / "wanted.json"
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(IntegrityError, match=r"wanted\.json"):
        WantedFile(tmp_path)


# ------------------------------------------------------------ ledger


def test_revoking_a_name_revokes_all_its_certificates_until_they_expire(tmp_path: Path) -> None:
    now = [1000.0]
    ledger = Ledger(tmp_path, lambda: now[0])
    for serial, name, expires_s in (("1a", "n1", 2000.0), ("2b", "n1", 3000.0), ("3c", "n2", 3000.0)):
        ledger.note(Issued(serial=serial, name=name, kind="node", key=f"key of {name}", expires_s=expires_s))
    assert ledger.revoke("n1") == ("1a", "2b")
    assert [issued.serial for issued in Ledger(tmp_path, lambda: now[0]).revoked()] == ["1a", "2b"]
    now[0] = 2500.0
    assert [issued.serial for issued in ledger.revoked()] == ["2b"]
    assert not (tmp_path / "1a.json").exists()
    with pytest.raises(NotFoundError, match="'n9'"):
        ledger.revoke("n9")


# ------------------------------------------------------------ backup


def _registry(folder: Path) -> Authority:
    authority = Authority(folder / "authority", ClusterSettings())
    WantedFile(folder).change(epoch=3)
    return authority


def test_a_backup_follows_each_change_and_brings_the_same_cluster_back(tmp_path: Path) -> None:
    folder, safe, new = tmp_path / "registry", tmp_path / "safe", tmp_path / "new"
    authority = _registry(folder)
    backup = Backup(folder, safe)
    assert backup.follow() == 3  # key, certificate, wanted state
    assert backup.follow() == 0
    token = authority.create_token("node")
    WantedFile(folder).change(epoch=4)
    assert backup.follow() == 2
    for path in safe.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    assert token.partition(".")[0].encode() not in b"".join(path.read_bytes() for path in safe.rglob("*") if path.is_file())
    restore(safe, new)
    again = Authority(new / "authority", ClusterSettings())
    assert (again.cluster_id, again.ca_pem) == (authority.cluster_id, authority.ca_pem)
    assert [view.token_id for view in again.list_tokens()] == [view.token_id for view in authority.list_tokens()]
    assert WantedFile(new).value.epoch == 4


def test_a_revoked_token_does_not_come_back_with_the_backup(tmp_path: Path) -> None:
    folder, safe = tmp_path / "registry", tmp_path / "safe"
    authority = _registry(folder)
    token = authority.create_token("node")
    backup = Backup(folder, safe)
    backup.follow()
    authority.revoke_token(token)
    assert backup.follow() == 1
    assert list((safe / "authority" / "tokens").iterdir()) == []
    authority.create_token("node")
    Backup(folder, safe).follow()  # a registry that restarted follows just the same
    assert len(list((safe / "authority" / "tokens").iterdir())) == 1


def test_a_restore_never_writes_over_a_cluster_nor_takes_half_a_backup(tmp_path: Path) -> None:
    folder, safe, other = tmp_path / "registry", tmp_path / "safe", tmp_path / "other"
    _registry(folder)
    Backup(folder, safe).follow()
    _registry(other)
    key = (other / "authority" / "ca.key").read_bytes()
    with pytest.raises(ConflictError, match="holds a cluster already"):
        restore(safe, other)
    assert (other / "authority" / "ca.key").read_bytes() == key
    (safe / "authority" / "ca.key").unlink()
    with pytest.raises(NotFoundError, match="no backup of a registry"):
        restore(safe, tmp_path / "new")
    with pytest.raises(SettingsError, match="another disk"):
        Backup(folder, folder / "backup")


def test_a_restore_that_is_cut_short_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, safe, new = tmp_path / "registry", tmp_path / "safe", tmp_path / "new"
    _registry(folder)
    Backup(folder, safe).follow()
    real, calls = os.replace, []

    def failing(source: object, target: object) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr("pathlib.Path.replace", lambda self, target: failing(self, target))
    with pytest.raises(OSError, match="No space"):
        restore(safe, new)
    monkeypatch.undo()
    restore(safe, new)
    assert (new / "authority" / "ca.key").read_bytes() == (folder / "authority" / "ca.key").read_bytes()


@pytest.mark.parametrize(("written", "plain"), [("0A1b", "a1b"), ("0xff", "ff"), ("00", "0"), ("", "0")])
def test_serial_numbers_compare_however_they_are_written(written: str, plain: str) -> None:
    assert plain_serial(written) == plain
