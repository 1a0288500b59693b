"""The gateway's self-made certificate: its key is what the ledger names, so it is kept for good in the home."""

import datetime
import ipaddress
import os
import ssl
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from provider.client import spki_hash

YEARS: Final = 30
"""Nobody checks the dates: the key is pinned. They only have to be far enough away."""


class CertificateFailed(Exception):
    """The certificate in the home cannot be used or written."""

    exit_code = 1

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


class Certificate(msgspec.Struct, frozen=True):
    """A certificate with its private key in one PEM file."""

    path: Path
    key_hash: str
    """Hex of SHA-256 over the SubjectPublicKeyInfo: `gateway_key` on the ledger."""

    def context(self) -> ssl.SSLContext:
        """A server's TLS context with it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.path)
        return context


def load_or_make(path: Path) -> Certificate:
    """The certificate at `path` (mode 0600), made where there is none."""
    try:
        if not path.exists():
            _make(path)
        pem = path.read_bytes()
        load_pem_private_key(pem, None)
        return Certificate(path, spki_hash(x509.load_pem_x509_certificate(pem)))
    except OSError as error:
        raise CertificateFailed(
            f"{path} cannot be used: {error.strerror}", "make room on that disk, or mend its rights"
        ) from None
    except ValueError as error:
        raise CertificateFailed(f"{path} is damaged: {error}", "restore it, or delete it: tenants then see a new key") from None


def _make(path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gpubid gateway")])
    start = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=365 * YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(private + certificate.public_bytes(Encoding.PEM))
            out.flush()
            os.fsync(out.fileno())
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    draft.rename(path)
