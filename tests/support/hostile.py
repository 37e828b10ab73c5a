"""A hostile HTTP server on loopback, for mirrors, registries and feeds that mean harm, and the bombs that it sends.

    with hostile() as server:
        server["/trixie"] = Reply(zlib_bomb(GIB))                    # any body, any header
        server["/short"] = Reply(b"x" * 100, claim=200)              # promises more bytes than it sends
        server["/liar"] = Reply(b"other", headers={"Docker-Content-Digest": "sha256:..."})
        server["/moved"] = redirect("file:///etc/shadow")            # or server.elsewhere + "/x", or loop: "/moved"
        server["/slow"] = drip = Drip([b"a", b"b"])                  # sends a part for each `drip.step()`
        server["/endless"] = Reply(endless(b"x"))                    # never ends; each part is sent at once
        server.fallback = lambda asked: Reply(status=503)            # whatever has no route; 404 if not set
        ...
        assert [one.path for one in server.asked] == ["/trixie"]

What is held back is held until the test steps it or the server closes. Only `slowly` lets time pass.
"""

from __future__ import annotations

import datetime
import gzip
import io
import itertools
import json
import lzma
import ssl
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
ANY_PORT = ("127.0.0.1", 0)


@dataclass(frozen=True)
class Asked:
    """A request that came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Reply:
    """What the server answers. `claim` is the Content-Length that it says (None: the true one, where it knows it; with
    a claim that is not true the connection ends after the body).
    """

    body: bytes | Iterable[bytes] = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    claim: int | None = None

    def parts(self) -> Iterator[bytes]:
        """The body, piece by piece."""
        return iter([self.body] if isinstance(self.body, bytes) else self.body)

    @property
    def length(self) -> int | None:
        """The Content-Length to say; None for bodies of unknown length, which end with the connection."""
        return len(self.body) if self.claim is None and isinstance(self.body, bytes) else self.claim

    def release(self) -> None:
        """Called when the server closes: nothing is held back here."""


class Raw(Reply):
    """Bytes as they go over the line, status line and headers included: for an answer that is not even HTTP."""


class Drip(Reply):
    """Sends one part of the body for each `step()`, and goes on waiting after the last until the server closes."""

    def __init__(self, parts: Iterable[bytes], claim: int | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(parts, headers=headers or {}, claim=claim)
        self._steps = threading.Semaphore(0)
        self._closed = threading.Event()
        self.started = threading.Event()
        """Set when a client has asked and got the headers."""

    def step(self, parts: int = 1) -> None:
        """Let `parts` more parts go."""
        self._steps.release(parts)

    def parts(self) -> Iterator[bytes]:
        self.started.set()
        for part in itertools.chain(self.body, itertools.repeat(b"")):
            self._steps.acquire()
            if self._closed.is_set():
                return
            yield part if isinstance(part, bytes) else bytes([part])

    def release(self) -> None:
        self._closed.set()
        self._steps.release(1 << 20)


def slowly(parts: Iterable[bytes]) -> Iterator[bytes]:
    """`parts`, a twentieth of a second apart: no single read is late, all of them together are."""
    never = threading.Event()
    for part in parts:
        yield part
        never.wait(0.05)


def redirect(target: str, status: int = 302) -> Reply:
    """An answer that sends the client on to `target`: another host, another scheme, or the same path for a loop."""
    return Reply(status=status, headers={"Location": target})


def endless(part: bytes) -> Iterable[bytes]:
    """A body of `part` again and again, until the client goes."""
    return itertools.repeat(part)


Route = Reply | Callable[[Asked], Reply]


class Hostile:
    """The running server: routes by path (without the query) to a Reply, or to a function that makes one.

    `address` is http(s)://127.0.0.1:port, `elsewhere` is the same server under another host's name, `authority` is
    host:port as registries are named; `ca` is the file that trusts its certificate, where it speaks TLS.
    """

    def __init__(self, certificates: Path | None = None, at: tuple[str, int] = ANY_PORT, name: str = "") -> None:
        self.routes: dict[str, Route] = {}
        self.fallback: Route = Reply(b"not here", status=404)
        self.asked: list[Asked] = []
        self.ca: Path | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
            setattr(Handler, f"do_{method}", Handler._answer)
        self._replies: list[Reply] = []
        self._http = _Server(at, Handler)
        scheme = "http"
        if certificates:
            scheme, self.ca = "https", certificates / "hostile.pem"
            self._http.socket = server_tls(self.ca, name or "localhost").wrap_socket(
                self._http.socket, server_side=True, do_handshake_on_connect=False
            )
        self.authority = f"{at[0]}:{self._http.server_port}"
        self.address = f"{scheme}://{self.authority}"
        self.elsewhere = f"{scheme}://localhost:{self._http.server_port}"

    def __setitem__(self, path: str, route: Route) -> None:
        self.routes[path] = route

    @property
    def paths(self) -> list[str]:
        """The paths that were asked for, in order."""
        return [one.path for one in self.asked]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request by its route; a client that goes away in the middle is no failure."""
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        asked = Asked(handler.command, handler.path, dict(handler.headers), body)
        self.asked.append(asked)
        route = self.routes.get(handler.path.partition("?")[0], self.fallback)
        reply = route(asked) if callable(route) else route
        self._replies.append(reply)
        handler.close_connection = True
        try:
            if isinstance(reply, Raw):
                for part in reply.parts():
                    handler.wfile.write(part)
                    handler.wfile.flush()
                return
            handler.send_response(reply.status)
            for name, value in {"Connection": "close", **reply.headers}.items():
                handler.send_header(name, value)
            if reply.length is not None:
                handler.send_header("Content-Length", str(reply.length))
            handler.end_headers()
            handler.wfile.flush()
            for part in reply.parts() if handler.command != "HEAD" else ():
                handler.wfile.write(part)
                handler.wfile.flush()
        except OSError:
            pass

    def start(self) -> None:
        """Answer from now on, in threads."""
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        """End all answers that are held back, and the server."""
        for reply in self._replies:
            reply.release()
        if not self._thread.is_alive():
            return
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Quiet: clients that hang up, or do not trust the certificate, are what these tests are about."""


@contextmanager
def hostile(certificates: Path | None = None, at: tuple[str, int] = ANY_PORT, name: str = "") -> Iterator[Hostile]:
    """A running server; with a directory for its certificate it speaks TLS for 127.0.0.1 and localhost, or `name`."""
    server = Hostile(certificates, at, name)
    server.start()
    try:
        yield server
    finally:
        server.close()


def server_tls(file: Path, called: str = "localhost") -> ssl.SSLContext:
    """A server's context with a fresh self-signed certificate, which is written to `file` with its key."""
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hostile test server")])
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName(called)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


# Bombs: small bytes that unpack to `size` zeros. Making one takes neither that memory nor much time.


def gzip_bomb(size: int) -> bytes:
    """Gzip members, one after the other, of `size` zeros together."""
    return _repeated(lambda block: gzip.compress(block, mtime=0), size)


def xz_bomb(size: int) -> bytes:
    """Xz streams, one after the other, of `size` zeros together."""
    return _repeated(lzma.compress, size)


def zstd_bomb(size: int) -> bytes:
    """Zstandard frames, one after the other, of `size` zeros together."""
    import zstandard

    return _repeated(zstandard.ZstdCompressor().compress, size)


def zlib_bomb(size: int, head: bytes = b"") -> bytes:
    """One zlib stream of `head` and `size` zeros, with a right checksum."""
    packer = zlib.compressobj(9)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    blocks, rest = divmod(size, 16 * MIB)
    block = packer.compress(bytes(16 * MIB)) + packer.flush(zlib.Z_FULL_FLUSH)  # the same bytes after every full flush
    end = zlib.compressobj(9, wbits=-15)
    tail = end.compress(bytes(rest)) + end.flush()
    low = zlib.adler32(head)
    checksum = (low & 0xFFFF) | (((low >> 16) + size * (low & 0xFFFF)) % 65521 << 16)
    return start + block * blocks + tail + checksum.to_bytes(4, "big")


def _repeated(pack: Callable[[bytes], bytes], size: int) -> bytes:
    blocks, rest = divmod(size, 16 * MIB)
    return pack(bytes(16 * MIB)) * blocks + (pack(bytes(rest)) if rest or not blocks else b"")


def huge_json(size: int) -> Iterator[bytes]:
    """A JSON list of about `size` bytes, piece by piece."""
    piece = b'"' + b"x" * (64 * KIB - 3) + b'",'
    yield b"["
    yield from itertools.repeat(piece, size // len(piece))
    yield b'""]'


def deep_json(depth: int) -> bytes:
    """Lists in lists, `depth` deep: what recursion does not survive."""
    return b"[" * depth + b"]" * depth


def costly_json(size: int) -> bytes:
    """About `size` bytes of empty objects, which take many times as much memory when they are parsed."""
    return b"[" + b"{}," * (size // 3) + b"{}]"


# Tar members that mean harm, for layers and exports.


def tar_of(*members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> bytes:
    """An uncompressed tar of `members`, each alone or with its content."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            info, content = member if isinstance(member, tuple) else (member, b"")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """A regular file for `tar_of`; `fields` are set on its TarInfo (mode, uid, type, linkname, pax_headers)."""
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def sparse_tar(name: str, size: int) -> bytes:
    """A tar of a few hundred bytes with one sparse file (GNU 1.0 in pax headers) of `size` bytes, all of it a hole."""
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": name}
    headers["GNU.sparse.realsize"] = str(size)
    return tar_of(member(f"GNUSparseFile.0/{name}", f"1\n{size}\n0\n".encode().ljust(512, b"\0"), pax_headers=headers))


def old_sparse_tar(name: str, size: int) -> bytes:
    """The same in GNU's old form: a member of type `S` with its map in the header."""
    info = tarfile.TarInfo(name)
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT)[:512])
    for at, number in ((386, size), (398, 0), (483, size)):  # one empty piece at the end; the real size
        header[at : at + 12] = f"{number:011o}\0".encode()
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + bytes(1024)


def tar_bomb(name: str, size: int, pack: Callable[[bytes], bytes] | None = None) -> bytes:
    """A gzip (or `pack`ed) tar with one file of `size` zeros, packed to about a thousandth."""
    info = tarfile.TarInfo(name)
    info.size = size
    if pack is None:
        return gzip.compress(info.tobuf(), mtime=0) + gzip_bomb(-(-size // 512) * 512 + 1024)
    return pack(info.tobuf()) + _repeated(pack, -(-size // 512) * 512 + 1024)


def dump(value: object) -> bytes:
    """JSON as a server sends it."""
    return json.dumps(value).encode()
