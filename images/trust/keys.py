"""The keys of this installation, and the signers: a file of ours, AWS KMS, or a program. Edge.

A key pair of ours lies in `state`/keys: `DAY-NUMBER-ID.key` (its owner's alone) and `DAY-NUMBER-ID.pub`, which sort by
age. It signs from that day until the next one's, when its private half is removed; what it signed until then stays
trusted.
"""

from __future__ import annotations

import hashlib
import os
import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from hardening.foundation.content import parse
from hardening.foundation.errors import ContentError, OutsideError, RefusedError
from hardening.foundation.locks import only_one
from hardening.foundation.process import NETWORK, run
from hardening.foundation.settings import Settings
from hardening.trust import TrustedKey, der_of
from images.trust.envelope import Signer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

KMS = "awskms:"
SIGN_SECONDS = 120
LOCK_SECONDS = 60
FILE = re.compile(r"(?P<day>\d{4}-\d\d-\d\d)-(?P<number>\d{4})-[0-9a-f]{12}\.pub")
UNFINISHED = ".new"


def signer(settings: Settings, today: date) -> Signer:
    """What signs releases here: as `signing` says, by default the newest key of ours, made where there is none.

    Raises ContentError for a key that cannot be one, OutsideError where it does not answer.
    """
    asked = settings.signing
    if asked.command:
        return ProgramSigner(asked.command, public_der(asked.public_key))
    if asked.key:
        from images.aws.client import Clients
        from images.aws.kms import KmsSigner

        return KmsSigner(Clients(settings.aws), asked.key.removeprefix(KMS), "signing.key")
    return FileSigner(make(settings, today))


def own_keys(settings: Settings) -> tuple[TrustedKey, ...]:
    """The keys whose signatures are ours, the oldest first; none before the first was made."""
    if settings.signing.command or settings.signing.key:
        return (TrustedKey(name="own", public=pem_of(signer(settings, date.min).public)),)
    files = _public_files(settings.state_dir / "keys")
    changes = [date.fromisoformat(file.name[:10]) for file in files[1:]]
    days = zip(files, [date.min, *changes], [*changes, date.max], strict=False)
    return tuple(_own(file, file.read_text(), since, until) for file, since, until in days)


def make(settings: Settings, today: date) -> Path:
    """The private key that signs now; the first is made by this."""
    folder = _folder(settings)
    if found := sorted(folder.glob("*.key")):
        return found[-1]
    with only_one(_lock(settings), "making the signing key", wait_seconds=LOCK_SECONDS):
        return next(iter(sorted(folder.glob("*.key"))[-1:]), None) or _generated(folder, today)


def rotate(settings: Settings, today: date) -> tuple[TrustedKey, ...]:
    """Make a new key, and remove the private half of those before; all of ours now.

    Raises RefusedError where the key is not a file of ours.
    """
    if settings.signing.command or settings.signing.key:
        raise RefusedError("the key is not kept here", hint="rotate it where it is; policies name keys with their days")
    folder = _folder(settings)
    with only_one(_lock(settings), "rotating the signing key", wait_seconds=LOCK_SECONDS):
        old = sorted(folder.glob("*.key"))
        new = _generated(folder, today)
        for file in old:
            if file != new:
                file.unlink()
    return own_keys(settings)


def public_der(file: Path | None) -> bytes:
    """The public key (DER) in the PEM file of `signing.public_key`. Raises ContentError."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        if file is None:
            raise ValueError("none is named")
        return der_of(load_pem_public_key(file.read_bytes()))
    except (OSError, ValueError) as error:
        what = f"no public key can be read: {error}"
        raise ContentError(what, file="goldsmith.toml", key="signing.public_key") from None


def pem_of(der: bytes) -> str:
    """A public key (DER) as PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

    return load_der_public_key(der).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@dataclass(frozen=True)
class FileSigner:
    """A private key (PEM) in a file."""

    file: Path

    @property
    def public(self) -> bytes:
        """The public half."""
        return der_of(self._private().public_key())

    def sign(self, message: bytes) -> bytes:
        """The signature, always the same one (RFC 6979): what was cut short is completed, and leaves nothing behind."""
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.hashes import SHA256

        return self._private().sign(message, ECDSA(SHA256(), deterministic_signing=True))

    def _private(self) -> EllipticCurvePrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        status = self.file.stat()
        if status.st_mode & 0o077 or status.st_uid != os.geteuid():
            hint = f"chmod 600 {self.file}; was it read by others, ./goldsmith key.rotate makes another one"
            raise RefusedError(f"{self.file} is accessible to others, so it is not used for signing", hint=hint)
        try:
            key = load_pem_private_key(self.file.read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise OutsideError(f"{self.file} holds no private key: {error}") from None
        if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
            raise OutsideError(f"{self.file} is not an ECDSA P-256 key")
        return key


@dataclass(frozen=True)
class ProgramSigner:
    """A program that reads, in base64, what to sign, and prints the signature in base64."""

    command: Sequence[str]
    public: bytes

    def sign(self, message: bytes) -> bytes:
        """The signature. Raises OutsideError where the program fails or prints something else."""
        asked = b64encode(message).decode()
        done = run(self.command, stdin=asked, passes=NETWORK, timeout=SIGN_SECONDS, hint="signing.command names it")
        try:
            return b64decode("".join(done.stdout.split()), validate=True)
        except ValueError as error:
            raise OutsideError(f"{self.command[0]} printed no signature in base64: {error}") from None


def _folder(settings: Settings) -> Path:
    folder = settings.state_dir / "keys"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _lock(settings: Settings) -> Path:
    return settings.state_dir / "locks" / "keys.lock"


@lru_cache(maxsize=16)
def _own(file: Path, public: str, since: date, until: date) -> TrustedKey:
    return parse({"name": file.stem, "public": public, "since": since, "until": until}, TrustedKey, str(file))


def _public_files(folder: Path) -> list[Path]:
    """The public halves, the oldest first, without those whose private half was never finished."""
    unfinished = {file.name[1 : -len(UNFINISHED)] for file in folder.glob(f".*{UNFINISHED}")}
    return sorted(file for file in folder.glob("*.pub") if FILE.fullmatch(file.name) and file.stem not in unfinished)


def _generated(folder: Path, today: date) -> Path:
    """A new pair. The last step, the rename of its private half, makes it count: cut short before, nothing changed."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    for left in folder.glob(f".*{UNFINISHED}"):
        (folder / f"{left.name[1 : -len(UNFINISHED)]}.pub").unlink(missing_ok=True)
        left.unlink()
    private = generate_private_key(SECP256R1())
    der = der_of(private.public_key())
    day, number = _next(folder, today)
    name = f"{day}-{number:04}-{hashlib.sha256(der).hexdigest()[:12]}"
    making, file, public = folder / f".{name}{UNFINISHED}", folder / f"{name}.key", folder / f"{name}.pub"
    _write(making, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    making_public = folder / f".{public.name}{UNFINISHED}"
    _write(making_public, pem_of(der).encode())
    making_public.rename(public)
    making.rename(file)
    return file


def _next(folder: Path, today: date) -> tuple[date, int]:
    """The day and the number of the next pair: both sort after the newest one's, also where the clock went back."""
    newest = [FILE.fullmatch(file.name) for file in _public_files(folder)][-1:]
    if not newest or newest[0] is None:
        return today, 1
    return max(today, date.fromisoformat(newest[0]["day"])), int(newest[0]["number"]) + 1


def _write(file: Path, data: bytes) -> None:
    """Write a new file, its owner's alone, to the disk."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as sink:
        sink.write(data)
        os.fsync(sink.fileno())
