"""Hosts of Docker fleets for tests: an engine that also listens with TLS on loopback, and an sshd before it."""

from __future__ import annotations

import ipaddress
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hardening.foundation.process import run, which
from hardening.foundation.settings import Settings
from pipelines.host.private_engine import PrivateEngine

KEYS = ("ca.pem", "cert.pem", "key.pem")


def free_port() -> int:
    """A port that is not listened on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def certificates(folder: Path, *, address: str = "127.0.0.1") -> tuple[Path, Path]:
    """Folders for an engine and its client, with certificates of one new authority; the engine's names `address`."""
    authority, key = _signed("authority", None, None)
    for name in ("engine", "client"):
        at = folder / name
        at.mkdir(parents=True)
        own, own_key = _signed(address if name == "engine" else name, authority, key)
        texts = (_pem(authority), _pem(own), _key(own_key))
        for file, text in zip(KEYS, texts, strict=True):
            (at / file).write_bytes(text)
    return folder / "engine", folder / "client"


def _signed(
    name: str, authority: x509.Certificate | None, key: ec.EllipticCurvePrivateKey | None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    own, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(authority.subject if authority else subject)
        .public_key(own.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key((key or own).public_key()), critical=False)
        .add_extension(x509.KeyUsage(True, False, False, False, False, authority is None, False, False, False), True)
    )  # fmt: skip
    if name.startswith("127."):
        address = x509.IPAddress(ipaddress.ip_address(name))
        made = made.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    return made.sign(key or own, hashes.SHA256()), own


def _pem(one: x509.Certificate) -> bytes:
    return one.public_bytes(serialization.Encoding.PEM)


def _key(one: ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return one.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


class TlsEngine(PrivateEngine):
    """A private engine that listens on a port of loopback too, with certificates from `keys`."""

    def __init__(self, settings: Settings, keys: Path) -> None:
        super().__init__(settings)
        self._keys = keys
        self.port = free_port()

    @property
    def address(self) -> str:
        """As fleets name it."""
        return f"tcp://127.0.0.1:{self.port}"

    def _argv(self, config: Path) -> list[str]:
        files = zip(("--tlscacert", "--tlscert", "--tlskey"), KEYS, strict=True)
        given = [word for option, file in files for word in (option, str(self._keys / file))]
        return [*super()._argv(config), "--host", self.address, "--tlsverify", *given]


@dataclass(frozen=True)
class SshHost:
    """An sshd on loopback. `config` is for ssh -F; `known` the hosts that it knows, `key` the host's own line there."""

    port: int
    config: Path
    known: Path
    key: str

    @property
    def address(self) -> str:
        """As fleets name it."""
        return f"ssh://root@127.0.0.1:{self.port}"


@contextmanager
def sshd(folder: Path, engine: str) -> Iterator[SshHost]:
    """An sshd whose commands see `engine` as DOCKER_HOST. Its host key is known at first."""
    server, port = which("sshd"), free_port()
    assert server
    Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "user"):
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)])
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        "PermitRootLogin yes\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n"
        f"PidFile none\nSetEnv DOCKER_HOST={engine}\n"
    )
    key = f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}"
    known, config = folder / "known_hosts", folder / "ssh_config"
    known.write_text(key)
    config.write_text(
        f"Host *\nIdentityFile {folder}/user\nIdentitiesOnly yes\nUserKnownHostsFile {known}\n"
        "GlobalKnownHostsFile none\nStrictHostKeyChecking no\n"  # which must change nothing
    )
    child = subprocess.Popen([str(server), "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.DEVNULL)
    try:
        _until_it_listens(port)
        yield SshHost(port, config, known, key)
    finally:
        child.terminate()
        child.wait()


def _until_it_listens(port: int) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
