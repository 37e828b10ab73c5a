"""Our uploader against a bare read, hash and send loop over boto3: the same disk, null server and connections.

What no AWS client stands in the way of (plain HTTP, unsigned, unchecked) is measured beside them and claimed by nobody.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from measure import ROOT, Reading, Report, alternate, rounds

BLOCK, BLOCKS, PARALLEL = 524_288, 2048, 16
OURS, BARE, PLAIN = "our uploader", "bare loop: read, hash, boto3", "the same by plain HTTP, unsigned"
MEMORY_MB = 300
Action = Callable[[], None]
CREDENTIALS = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
ANSWER = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def serve() -> None:
    """Take every request's body, keep nothing, answer 201: the service that costs least. Prints its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_swallow, args=(connection,), daemon=True).start()


def _swallow(connection: socket.socket) -> None:
    room = memoryview(bytearray(1 << 20))
    while True:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (more := connection.recv(1 << 16)):
                return
            head += more
        lines, _, begun = head.partition(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in lines.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        left = int(lengths[0]) - len(begun)
        if b"100-continue" in lines.lower():
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        while left > 0:
            left -= connection.recv_into(room[: min(left, len(room))])
        connection.sendall(ANSWER)


def bare(url: str, disk: Path) -> Action:
    """The least that an uploader over boto3 must do: read a block, hash it, send it."""
    import boto3
    from botocore.config import Config

    config = Config(max_pool_connections=PARALLEL, retries={"mode": "standard"})
    ebs = boto3.client("ebs", region_name="eu-central-1", endpoint_url=url, config=config, **CREDENTIALS)
    file = os.open(disk, os.O_RDONLY)

    def put(index: int) -> None:
        data = os.pread(file, BLOCK, index * BLOCK)
        checksum = b64encode(hashlib.sha256(data).digest()).decode()
        ebs.put_snapshot_block(
            SnapshotId="snap-1", BlockIndex=index, BlockData=data, DataLength=BLOCK, Checksum=checksum,
            ChecksumAlgorithm="SHA256",
        )  # fmt: skip

    return partial(_in_threads, put)


def plain(url: str, disk: Path) -> Action:
    """Read a block, hash it, send it by Python's own HTTP client; connections are kept."""
    address, local, file = urlsplit(url).netloc, threading.local(), os.open(disk, os.O_RDONLY)

    def put(index: int) -> None:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection(address)
            local.connection.connect()
            local.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = os.pread(file, BLOCK, index * BLOCK)
        digest = hashlib.sha256(data).hexdigest()
        local.connection.request("PUT", f"/snapshots/snap-1/blocks/{index}", data, {"x-amz-Checksum": digest})
        local.connection.getresponse().read()

    return partial(_in_threads, put)


def ours(url: str, disk: Path) -> Action:
    """What `image.publish` does with a first upload. The digests are the build's, as there."""
    from hardening.foundation.settings import Aws
    from images.aws.client import Clients
    from images.aws.snapshots import upload

    os.environ |= {"AWS_ENDPOINT_URL": url, **{name.upper(): value for name, value in CREDENTIALS.items()}}
    settings = Aws(account="123456789012", region="eu-central-1", parallel=PARALLEL)
    digests = disk.with_suffix(".digests").read_bytes()
    ebs = Clients(settings).client("ebs", settings.region)
    return lambda: upload(ebs, "snap-1", disk, range(BLOCKS), digests, parallel=PARALLEL, progress=lambda *_: None)


def _in_threads(put: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(put, range(BLOCKS)))


def measured(prepare: Callable[[str, Path], Action], url: str, disk: Path) -> None:
    """Run what `prepare` gives and print, as JSON, its seconds and the peak of the whole process's memory in MB."""
    action = prepare(url, disk)
    start, used = time.monotonic(), time.process_time()
    action()
    wall, cpu = time.monotonic() - start, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps({"wall": wall, "cpu": cpu, "peak_mb": peak}))


def main() -> int:
    """Measure, print, and say by the exit code whether the claims hold."""
    times, peaks = rounds(5, __doc__ or ""), dict[str, float]()
    with tempfile.TemporaryDirectory(prefix="goldsmith-bench-") as folder:
        disk = _disk(Path(folder, "disk.raw"))
        server = subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True)
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}" if server.stdout else ""

        def run(name: str, role: str) -> Reading:
            argv = [sys.executable, __file__, role, url, str(disk)]
            said = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
            found = json.loads(said)
            peaks[name] = max(peaks.get(name, 0), found["peak_mb"])
            return Reading(found["wall"], found["cpu"])

        try:
            runs = {name: partial(run, name, role) for name, role in ((BARE, "bare"), (OURS, "ours"), (PLAIN, "plain"))}
            report = Report(alternate(runs, times))
        finally:
            server.kill()
            server.wait()
    report.table()
    for name in runs:
        rate = BLOCKS * BLOCK / 2**20 / report.seconds(name)
        print(f"{name:32}{rate:8.0f} MiB/s, at most {peaks[name]:.0f} MB of memory")
    report.claim("bare / ours, the share of the bare loop's rate that is lost", 1 - report.ratio(BARE, OURS), 0.2)
    report.claim("memory of our uploader in MB", peaks[OURS], MEMORY_MB)
    return int(report.failed)


def _disk(path: Path) -> Path:
    """A disk of noise, with the digests of its blocks beside it."""
    digests = bytearray()
    with path.open("wb") as file:
        for _ in range(BLOCKS):
            block = os.urandom(BLOCK)
            file.write(block)
            digests += hashlib.sha256(block).digest()
    path.with_suffix(".digests").write_bytes(digests)
    return path


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve"]:
            serve()
        case [("bare" | "ours" | "plain") as role, url, disk]:
            measured({"bare": bare, "ours": ours, "plain": plain}[role], url, Path(disk))
        case _:
            sys.exit(main())
