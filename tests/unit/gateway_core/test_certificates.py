"""The certificates of Envoy and our services: what each may be used for, and when they are made anew."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway_core import certificates
from gateway_core.certificates import (
    AUTHORITY_FILE,
    FILES,
    LIFETIME,
    RENEWED_BEFORE,
    are_good,
    certificate_file,
    issue,
    key_file,
)
from gateway_core.contract import Peer

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ISSUED = issue(NOW)
OTHER = issue(NOW)


def certificate(name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(ISSUED[name].encode())


def test_each_peer_has_a_certificate_in_its_name_for_its_side_of_a_connection_and_no_other() -> None:
    authority = certificate(AUTHORITY_FILE)
    both = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    sides = {Peer.ENVOY: both, Peer.BILLING_SINK: both}
    for peer in Peer:
        leaf = certificate(certificate_file(peer))
        leaf.verify_directly_issued_by(authority)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [peer]
        usage = list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        assert usage == sides.get(peer, [ExtendedKeyUsageOID.SERVER_AUTH])
        assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        public = leaf.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        assert isinstance(public.curve, ec.SECP256R1)
        assert leaf.not_valid_after_utc - NOW == LIFETIME


def test_no_file_has_the_authoritys_key() -> None:
    assert set(ISSUED) == set(FILES)
    assert [name for name, content in ISSUED.items() if "PRIVATE KEY" in content] == [key_file(peer) for peer in Peer]


def test_they_are_good_until_they_end_soon() -> None:
    due = NOW + LIFETIME - RENEWED_BEFORE
    assert are_good(ISSUED, NOW)
    assert are_good(ISSUED, due)
    assert not are_good(ISSUED, due + timedelta(seconds=1))


def test_one_that_is_not_for_its_sides_of_connections_makes_all_of_them_due(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = {**certificates._USAGE, Peer.BILLING_SINK: (ExtendedKeyUsageOID.SERVER_AUTH,)}
    monkeypatch.setattr(certificates, "_USAGE", usage)
    before = issue(NOW)
    assert are_good(before, NOW)
    monkeypatch.undo()
    assert not are_good(before, NOW)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [None, "", "no certificate", "of another authority"])
def test_one_file_that_does_not_belong_to_the_others_makes_all_of_them_due(name: str, content: str | None) -> None:
    files = {**ISSUED, name: OTHER[name] if content == "of another authority" else content or ""}
    if content is None:
        del files[name]
    assert not are_good(files, NOW)
