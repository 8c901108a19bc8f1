"""Tokens, key files and fingerprints: what `labelloop.tls` decides without a network."""

from __future__ import annotations

import builtins
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cluster.authority import Authority, key_fingerprint
from labelloop.errors import InvalidInputError, SettingsError, UnauthenticatedError
from labelloop.settings import ClusterSettings
from labelloop.tls import (
    ContextSource,
    Identity,
    certificate_hash,
    identity_in,
    key_hash,
    load_identity,
    make_key,
    make_request,
    make_token,
    split_token,
    write_file,
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), ClusterSettings())


def test_a_token_splits_into_the_secret_and_the_hash_of_the_ca(authority: Authority) -> None:
    token = make_token("a.secret_with-dots", authority.ca_pem)
    assert split_token(f" {token}\n") == ("a.secret_with-dots", certificate_hash(authority.ca_pem))


@pytest.mark.parametrize("token", ["", "x", "secret.", "secret.short", "secret." + "g" * 64, "secret." + "A" * 64])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidInputError):
        split_token(token)


def test_the_key_hash_read_from_der_is_the_one_that_cryptography_computes(authority: Authority, tmp_path: Path) -> None:
    for kind in ("node", "ops", "client"):
        identity = authority.own_identity("n1", "127.0.0.1", kind, tmp_path / kind)  # type: ignore[arg-type]
        key = load_pem_private_key(identity.key_file.read_bytes(), None)
        der = ssl.PEM_cert_to_DER_cert(identity.certificate_file.read_text())
        assert key_hash(der) == key_fingerprint(key.public_key())


def test_a_key_is_private_from_its_first_moment_and_made_once(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    make_key(path)
    first = path.read_bytes()
    make_key(path)
    assert path.read_bytes() == first
    assert path.stat().st_mode & 0o777 == 0o600
    assert x509.load_pem_x509_csr(make_request(path, "n1").encode()).is_signature_valid


def test_an_identity_with_a_readable_key_or_a_missing_file_is_not_loaded(authority: Authority, tmp_path: Path) -> None:
    identity = authority.own_identity("n1", "127.0.0.1", "node", tmp_path)
    assert load_identity(tmp_path) == identity == identity_in(tmp_path)
    identity.key_file.chmod(0o640)
    with pytest.raises(UnauthenticatedError, match="chmod 600"):
        load_identity(tmp_path)
    identity.key_file.chmod(0o600)
    identity.ca_file.unlink()
    with pytest.raises(UnauthenticatedError, match=r"ca\.pem is missing"):
        load_identity(tmp_path)


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    write_file(tmp_path / "a", b"one", 0o600)
    write_file(tmp_path / "a", b"two", 0o600)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"two")]


def test_without_the_package_cryptography_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "cryptography":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SettingsError, match=r"labelloop\[join\]"):
        make_key(tmp_path / "key.pem")


def test_a_context_is_kept_until_the_certificate_changes_and_survives_a_broken_one(authority: Authority, tmp_path: Path) -> None:
    identity = authority.own_identity("n1", "127.0.0.1", "node", tmp_path)
    source = ContextSource(identity, is_server=True)
    first = source.get()
    assert source.get() is first
    identity.certificate_file.write_text("half written")
    assert source.get() is first
    authority.own_identity("n1", "127.0.0.1", "node", tmp_path)
    assert source.get() is not first


def test_a_source_without_a_readable_certificate_says_which_file(authority: Authority, tmp_path: Path) -> None:
    whole = authority.own_identity("n1", "127.0.0.1", "node", tmp_path)
    with pytest.raises(UnauthenticatedError, match="nowhere"):
        ContextSource(Identity(tmp_path / "nowhere", whole.key_file, whole.ca_file)).get()
