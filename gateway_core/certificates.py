"""The certificates by which Envoy and our services know each other: an authority and one certificate for each, as contents of files.

The authority's key signs them and is forgotten, so nobody can find it, and a renewal makes all of them anew. No I/O: callers
keep the files.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway_core.contract import Peer

LIFETIME: Final = timedelta(days=365)
RENEWED_BEFORE: Final = timedelta(days=90)
"""Files that would not last so long are made anew."""

AUTHORITY_FILE: Final = "ca.crt"

_CLOCKS_APART: Final = timedelta(hours=1)
_SERVER: Final = (ExtendedKeyUsageOID.SERVER_AUTH,)
_BOTH: Final = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
_USAGE: Final = {
    # Each dials the other: Envoy to have something written down, billing_sink to reach providers.
    Peer.ENVOY: _BOTH,
    Peer.BILLING_SINK: _BOTH,
    Peer.CONTROL_PLANE: _SERVER,
    Peer.EXT_AUTHZ: _SERVER,
    Peer.TRANSLATOR: _SERVER,
    Peer.RESPONSE_CACHE: _SERVER,
}


def certificate_file(peer: Peer) -> str:
    """Name of the file with its certificate."""
    return f"{peer}.crt"


def key_file(peer: Peer) -> str:
    """Name of the file with its private key."""
    return f"{peer}.key"


FILES: Final = (AUTHORITY_FILE, *(name for peer in Peer for name in (certificate_file(peer), key_file(peer))))


def issue(now: datetime) -> Mapping[str, str]:
    """A new authority and what it has signed: the content of each of `FILES`, in PEM."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _sign(_authority(authority_key), "tollgate", now, authority_key)
    files = {AUTHORITY_FILE: _pem(authority)}
    for peer in Peer:
        key = ec.generate_private_key(ec.SECP256R1())
        files[certificate_file(peer)] = _pem(_sign(_leaf(peer, key, authority), peer, now, authority_key))
        files[key_file(peer)] = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return files


def are_good(files: Mapping[str, str], now: datetime) -> bool:
    """Whether files are complete, of one authority, good for their sides of connections, and not to be renewed yet."""
    try:
        authority = x509.load_pem_x509_certificate(files[AUTHORITY_FILE].encode())
        leaves = [x509.load_pem_x509_certificate(files[certificate_file(peer)].encode()) for peer in Peer]
        keys = [load_pem_private_key(files[key_file(peer)].encode(), password=None) for peer in Peer]
        for leaf in leaves:
            leaf.verify_directly_issued_by(authority)
        usages = [set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) for leaf in leaves]
    except (KeyError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        # Incomplete, not what the names say, or a mixture of two renewals.
        return False
    ends = min(certificate.not_valid_after_utc for certificate in (authority, *leaves))
    return (
        now + RENEWED_BEFORE <= ends
        and all(leaf.public_key() == key.public_key() for leaf, key in zip(leaves, keys, strict=True))
        and usages == [set(_USAGE[peer]) for peer in Peer]
    )


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _leaf(peer: Peer, key: ec.EllipticCurvePrivateKey, authority: x509.Certificate) -> x509.CertificateBuilder:
    known_by = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        x509.CertificateBuilder()
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_USAGE[peer]), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(peer)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known_by), critical=False)
    )


def _sign(
    builder: x509.CertificateBuilder, name: str, now: datetime, authority_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    return (
        builder.subject_name(_name(name))
        .issuer_name(_name("tollgate"))
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_APART)
        .not_valid_after(now + LIFETIME)
        .sign(authority_key, hashes.SHA256())
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
