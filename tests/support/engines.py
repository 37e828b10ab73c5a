"""What tests of Docker fleets need: small images made from this host's own programs, a proxy, a stream of requests."""

from __future__ import annotations

import hashlib
import http.client
import io
import re
import tarfile
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import docker.errors
from filelock import FileLock

from hardening.foundation.process import run, which

WEB = """#!/bin/sh
# Answers every request with $ANSWER; TERM lets what has begun come to its end.
mkdir -p /tmp/www && echo "$ANSWER" > /tmp/www/index.html
echo "listening as $ANSWER"
busybox httpd -f -p 8080 -h /tmp/www &
trap 'kill $!; sleep 0.5; exit 0' TERM
wait
"""
LABEL = "goldsmith-test"
KEPT = "goldsmith-test-kept"  # images that stay on an engine as long as its tests: making one costs more than a tag
PATIENCE = 60  # seconds: a busy machine answers late, and that is no lost request


def busybox_image(
    api: Any, tag: str, answer: str, *changes: str, files: dict[str, str] | None = None, label: str = LABEL,
    keep: bool = True,
) -> str:  # fmt: skip
    """An image of this host's static busybox whose web server says `answer`; returns its id.

    It is made once an engine, where it has a second tag, unless it is not to be kept. With another `label` than that of
    `engine` it is made again and outlives the block, and whoever made it removes it.
    """
    busybox = which("busybox")
    assert busybox
    tree = {"web": WEB, **(files or {})}
    programs = ["sh", "wget", "sleep", "mkdir", "cat", "test", "false", "true", "killall"]
    archive = _tar({busybox: "bin/busybox"}, tree, {f"bin/{name}": "busybox" for name in programs})
    config = [f"ENV PATH=/bin ANSWER={answer}", 'CMD ["/web"]', "EXPOSE 8080", *changes, f"LABEL {label}=1"]
    return (_kept if keep and label == LABEL else _made)(api, archive, tag, config)


def nginx_image(api: Any, tag: str, config: str) -> str:
    """An image of this host's nginx with `config`; returns its id."""
    nginx = which("nginx")
    assert nginx
    libraries = {Path(found) for found in re.findall(r"(/\S+) \(0x", run(["ldd", str(nginx)]).stdout)}
    files = {nginx: "sbin/nginx"} | {library: str(library).lstrip("/") for library in libraries}
    accounts = {
        "etc/passwd": "root:x:0:0::/:/\n",
        "etc/group": "root:x:0:\n",
        "etc/nginx.conf": config,
        "tmp/empty": "",
    }
    command = 'CMD ["/sbin/nginx", "-c", "/etc/nginx.conf", "-e", "/dev/stderr", "-g", "daemon off; user root;"]'
    return _kept(api, _tar(files, accounts, {}), tag, [command, f"LABEL {LABEL}=1"])


def _tar(files: dict[Path, str], texts: dict[str, str], links: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder in ("tmp", "var", "var/lib", "var/lib/nginx", "var/log", "var/log/nginx", "run", "dev", "etc"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
            archive.addfile(entry)
        for source, name in files.items():
            entry = tarfile.TarInfo(name)
            data = source.resolve().read_bytes()
            entry.size, entry.mode = len(data), 0o755
            archive.addfile(entry, io.BytesIO(data))
        for name, text in texts.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text.encode()), 0o755
            archive.addfile(entry, io.BytesIO(text.encode()))
        for name, target in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return buffer.getvalue()


def _kept(api: Any, archive: bytes, tag: str, changes: list[str]) -> str:
    kept = f"{KEPT}:{hashlib.sha256(archive + repr(changes).encode()).hexdigest()[:16]}"
    if not api.images(kept):
        _made(api, archive, kept, changes)
    api.tag(kept, *tag.split(":"))
    return str(api.inspect_image(tag)["Id"])


def _made(api: Any, archive: bytes, tag: str, changes: list[str]) -> str:
    repository, version = tag.split(":")
    api.import_image_from_data(archive, repository=repository, tag=version, changes=changes)
    return str(api.inspect_image(tag)["Id"])


@dataclass
class Stream:
    """Requests, `pause` seconds after each answer the next, and what became of them."""

    url: str
    pause: float
    answers: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def _ask(self) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while not self._stop.is_set():
            try:
                with opener.open(self.url, timeout=PATIENCE) as answer:
                    self.answers.append(answer.read().decode().strip())
            except (OSError, http.client.HTTPException) as error:  # an answer that was cut short is no OSError
                self.failures.append(repr(error))
            time.sleep(self.pause)


@contextmanager
def requests_to(url: str, threads: int = 2, pause: float = 0.005) -> Iterator[Stream]:
    """A steady stream of requests to `url` for the block."""
    stream = Stream(url, pause)
    workers = [threading.Thread(target=stream._ask, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield stream
    finally:
        stream._stop.set()
        for worker in workers:
            worker.join(PATIENCE + 10)


@contextmanager
def engine(host: str) -> Iterator[Any]:
    """A client of the engine; all that is labelled LABEL is removed before and after.

    One test at a time, whichever process runs it: they all call their containers by the same names.
    """
    lock = Path(tempfile.gettempdir(), f"goldsmith-test-{hashlib.sha256(host.encode()).hexdigest()[:12]}.lock")
    api: Any = docker.APIClient(base_url=host, version="auto")
    try:
        with FileLock(lock):
            clean(api)
            yield api
            clean(api)
    finally:
        api.close()


def clean(api: Any) -> None:
    """Remove what tests made: containers with their volumes, networks, volumes, the names of images."""
    mine = {"label": LABEL}
    for found in api.containers(all=True, filters=mine):
        volumes = [mount["Name"] for mount in found["Mounts"] if mount["Type"] == "volume"]
        api.remove_container(found["Id"], force=True, v=True)
        for volume in volumes:
            with suppress(docker.errors.APIError):
                api.remove_volume(volume)
    for found in api.networks(filters=mine):
        api.remove_network(found["Id"])
    for found in api.volumes(filters=mine)["Volumes"] or []:
        api.remove_volume(found["Name"])
    tags = {tag for found in api.images(filters=mine) for tag in found["RepoTags"] or []}
    for tag in tags:
        if not tag.startswith(f"{KEPT}:"):
            with suppress(docker.errors.APIError):
                api.remove_image(tag, force=True)


def forget_kept(host: str) -> None:
    """Remove the images that tests have kept on an engine; whoever still needs one makes it anew."""
    with engine(host) as api:
        for found in api.images(KEPT):
            with suppress(docker.errors.APIError):
                api.remove_image(found["Id"], force=True)
