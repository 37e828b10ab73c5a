"""The hostile server itself: it does what the tests that stand on it say that it does."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zlib

import pytest
import requests
import zstandard

from tests.support import hostile as h


def test_it_lies_cuts_and_redirects():
    """Claims, wrong digests, redirects to another name, another scheme and in a loop reach the client as written."""
    with h.hostile() as server:
        server["/short"] = h.Reply(b"abc", claim=9)
        server["/liar"] = h.Reply(b"abc", headers={"Docker-Content-Digest": "sha256:00"})
        server["/moved"] = h.redirect(server.elsewhere + "/liar")
        server["/file"] = h.redirect("file:///etc/shadow")
        server["/loop"] = h.redirect("/loop")
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            requests.get(f"{server.address}/short", timeout=600)
        assert requests.get(f"{server.address}/moved", timeout=600).headers["Docker-Content-Digest"] == "sha256:00"
        with pytest.raises(requests.exceptions.InvalidSchema):
            requests.get(f"{server.address}/file", timeout=600)
        with pytest.raises(requests.exceptions.TooManyRedirects):
            requests.get(f"{server.address}/loop", timeout=600)
        assert requests.get(f"{server.address}/none", timeout=600).status_code == 404
    assert server.paths[:3] == ["/short", "/moved", "/liar"]


def test_it_drips_by_steps_and_lets_go_when_it_closes():
    """A part comes for each step; what waits after the last part ends with the server."""
    with h.hostile() as server:
        server["/slow"] = drip = h.Drip([b"a", b"b", b"c"])
        with requests.get(f"{server.address}/slow", stream=True, timeout=600) as answer:
            assert drip.started.wait(600)
            drip.step()
            assert answer.raw.read(1) == b"a"
            drip.step(2)
            assert answer.raw.read(2) == b"bc"
            drip.release()
            assert answer.raw.read() == b""


def test_it_speaks_tls(tmp_path):
    """For both names of the loopback, with the certificate that it leaves."""
    with h.hostile(tmp_path) as server:
        server["/"] = h.Reply(b"ok")
        for address in (server.address, server.elsewhere):
            assert requests.get(f"{address}/", verify=str(server.ca), timeout=600).content == b"ok"
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(f"{server.address}/", timeout=600)


def length(stream):
    return sum(len(part) for part in iter(lambda: stream.read(h.MIB), b""))


def test_bombs_are_small_and_whole():
    """Each unpacks to what it promises, by the library that a victim would use."""
    size = 40 * h.MIB
    with gzip.open(io.BytesIO(h.gzip_bomb(size))) as stream:
        assert length(stream) == size
    with lzma.open(io.BytesIO(h.xz_bomb(size))) as stream:
        assert length(stream) == size
    with zstandard.ZstdDecompressor().stream_reader(h.zstd_bomb(size), read_across_frames=True) as stream:
        assert length(stream) == size
    packed = h.zlib_bomb(size, b"VERSION 1\n")
    assert len(packed) < size / 500
    assert zlib.decompress(packed) == b"VERSION 1\n" + bytes(size)


def test_tars_mean_harm():
    """Sparse files of both forms, and a file that is mostly zeros."""
    for packed in (h.sparse_tar("hole", h.MIB), h.old_sparse_tar("hole", h.MIB), h.tar_bomb("hole", h.MIB)):
        assert len(packed) < 10_240 + 1
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            [info] = tar.getmembers()
        assert (info.name, info.size) == ("hole", h.MIB)
