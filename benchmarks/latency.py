"""From a newer package in a local signed repository to the last of 20 running containers, behind a proxy under load.

One `nightly` does it all: index, feeds, plan, build, verify, scan, publish, promote, roll. Where the time went is read
from what it says meanwhile; which members run the newer image, from the engine. At the end `latency` must say the same.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from measure import ROOT, Report, end, require

sys.path[:0] = [str(ROOT / "tests")]
MEMBERS, AT_ONCE, MOST_SECONDS = 20, 10, 90.0
LABEL, IMAGE, PAGE, PATIENCE_SECONDS = "goldsmith-bench", "bench-web", "/usr/share/bench/version", 3600
DEFINITION = """\
title = "Of a benchmark"
owner = "benchmarks"
kind = "container"
profile = "container-base"
packages = ["busybox", "bench-page"]
user = "65532:65532"
command = ["busybox", "httpd", "-f", "-p", "8080", "-h", "/usr/share/bench"]
smoke = ["busybox", "true"]

[lifecycle]
soak = "0s"

[base]
golden = "debian-base"

[healthcheck]
none_because = "its fleet asks it"
"""
FLEET = f"""\
title = "Of a benchmark"
owner = "benchmarks"
kind = "docker"
policy = "demo"
approval = "none"
selector = {{ "{LABEL}" = "member" }}
replacement = {{ definition = "{IMAGE}" }}
health = {{ kind = "http", port = 8080, path = "/version" }}

[limits]
max_parallel = {AT_ONCE}
max_surge = {AT_ONCE}
budgets = [{{ nodes = "100%" }}]
canary = 1
min_healthy_time = "2s"
healthy_deadline = "60s"
bake_time = "3s"
drain = "5s"
settle = "2s"
"""
STAGES = {  # what a nightly says when a stage is over
    "index seen": r"index \S+: ",
    "feeds read, planned": rf"{IMAGE}: building",
    "built and verified": rf"{IMAGE}: built ",
    "scanned": rf"{IMAGE}: publishing",
    "published": rf"{IMAGE}: published ",
    "promoted, rollout planned": r"rollout \S+ runs in this process",
}
WAVES = {"canary rolled": 1, "wave 2 rolled": 1 + AT_ONCE, "wave 3 rolled: the last": MEMBERS}


@dataclass
class Round:
    """One newer package on its way: seconds from its publication, by stage, and what the requests got."""

    stages: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    requests: int = 0
    lost: int = 0


class Street:
    """A catalog over a local archive, twenty members of one fleet, and a proxy before them."""

    def __init__(self, folder: Path, docker_host: str) -> None:
        from images.engine import engine
        from tests.support.archive import Archive
        from tests.support.loop import Goldsmith

        self.client, self.archive, self.feeds = engine(docker_host), Archive(folder / "archive"), folder / "feeds"
        self.holes: list[str] = []
        content = folder / "content"
        for path, text in (
            (f"images/definitions/{IMAGE}/image.toml", DEFINITION), ("pipelines/fleets/bench.toml", FLEET),
        ):  # fmt: skip
            (content / path).parent.mkdir(parents=True)
            (content / path).write_text(text)
        self.feeds.mkdir()
        self.publish(1)
        none = dict.fromkeys(("debsecan", "trivy", "kev", "epss"), "none")
        self.inv = Goldsmith(folder / "state", docker_host).with_(
            content, cooldown="0s", packages__extra_sources=json.dumps([str(self.archive.sources())]),
            feeds=json.dumps({**none, "tracker": str(self.feeds)}),
        )  # fmt: skip

    def publish(self, version: int) -> None:
        """The archive holds the page in a newer version, and the tracker says which hole it closes."""
        from tests.support.catalogs import MANY

        self.archive.add("bench-page", f"{version}.0", {PAGE: f"page {version}\n"}, built=int(time.time()))
        if version > 1:
            self.holes.append(f"CVE-2099-{version:04}")
        said = {
            hole: {"releases": {"trixie": {"status": "resolved", "fixed_version": f"{number}.0", "urgency": "high"}}}
            for number, hole in enumerate(self.holes, 2)
        }
        always = {"linux": MANY, "openssl": MANY}
        (self.feeds / "tracker.json").write_text(json.dumps({**always, "bench-page-source": said}))
        (self.feeds / "metadata.json").write_text(json.dumps({"date": datetime.now(UTC).isoformat()}))
        self.archive.publish()

    def asked(self, *words: str) -> Any:
        """A command that must succeed; its JSON."""
        answer = self.inv(*words, "--json")
        if answer.code:
            sys.exit(f"{' '.join(words)} ended with status {answer.code}\n{answer.err[-3000:]}")
        return answer.json

    def open(self) -> str:
        """Release everything once and start the members and the proxy; the address that answers."""
        from hardening.foundation.settings import Settings
        from images.registry.login import auth_config
        from pipelines.demo.web_service import HARDENED, nginx_config, wait_for
        from pipelines.host import embedded_registry

        for name in ("nginx-unprivileged", IMAGE):
            self.asked("image.publish", name, "--policy", "demo")
            self.asked("image.promote", name, "--policy", "demo")
        settings = Settings(state=self.inv.state)
        proxy, web = (
            f"{embedded_registry.known_address(settings)}/{name}:stable" for name in ("nginx-unprivileged", IMAGE)
        )
        for image in (proxy, web):
            self.client.images.pull(image, auth_config=auth_config(settings, image))
        network = self.client.networks.create(LABEL, labels={LABEL: "network"})
        for number in range(MEMBERS):
            name, labels = f"bench-{number:02}", {LABEL: "member"}
            made = self.client.containers.create(web, name=name, labels=labels, init=True, **HARDENED)
            network.connect(made, aliases=["web"])
            made.start()
        script = 'printf %s "$CONFIG" >/tmp/nginx.conf; exec nginx -e stderr -c /tmp/nginx.conf -g "daemon off;"'
        started = self.client.containers.run(
            proxy, ["-c", script], entrypoint=["sh"], name="bench-proxy", labels={LABEL: "proxy"}, network=LABEL,
            environment={"CONFIG": nginx_config("web", 8080)}, ports={"8080/tcp": ("127.0.0.1", 0)}, detach=True,
            **HARDENED,
        )  # fmt: skip
        started.reload()
        url = f"http://127.0.0.1:{started.attrs['NetworkSettings']['Ports']['8080/tcp'][0]['HostPort']}/version"
        if not wait_for(url):
            sys.exit(f"the members do not answer:\n{started.logs(tail=20).decode(errors='replace')}")
        return url

    def running(self) -> dict[str, str]:
        """The image that runs under each member's own name."""
        found = self.client.api.containers(filters={"label": f"{LABEL}=member"})
        names = {str(one["Names"][0]).lstrip("/"): str(one["ImageID"]) for one in found}
        return {name: image for name, image in names.items() if re.fullmatch(r"bench-\d\d", name)}

    def clean(self) -> None:
        """Leave nothing on the engine, and no registry."""
        from hardening.foundation.settings import Settings
        from images.build.workspace import sweep
        from pipelines.demo.web_service import forget_images
        from pipelines.host import embedded_registry

        for container in self.client.containers.list(all=True, filters={"label": LABEL}):
            container.remove(force=True, v=True)
        for network in self.client.networks.list(filters={"label": LABEL}):
            network.remove()
        settings = Settings(state=self.inv.state)
        if registry := embedded_registry.known_address(settings):
            forget_images(self.inv.docker_host, registry)
        embedded_registry.stop(settings)
        sweep(settings, lambda: self.inv.docker_host)


@contextmanager
def street() -> Iterator[Street]:
    """One in a folder of its own, and nothing of it afterwards."""
    from hardening.foundation.settings import load_settings
    from pipelines.host.provision import docker_host

    with tempfile.TemporaryDirectory(prefix="goldsmith-bench-", ignore_cleanup_errors=True) as folder:
        made = Street(Path(folder), docker_host(load_settings(), for_builds=True))
        try:
            yield made
        finally:
            made.clean()


def patched(at: Street, url: str, version: int) -> Round:
    """Publish a newer package and let a nightly take it to the last member, while requests keep coming."""
    from pipelines.demo.web_service import steady
    from tests.support.loop import inv

    before, words = at.running(), [*inv(), "nightly", "--policy", "demo", "--only", IMAGE]
    at.publish(version)
    done, start = Round(), time.monotonic()
    with steady(url) as stream:
        night = subprocess.Popen(
            words, cwd=ROOT, env=at.inv.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        listening = threading.Thread(target=listen, args=(night, done, start))
        listening.start()
        try:
            watch(at, night, before, done, start)
            status = night.wait(PATIENCE_SECONDS)
        finally:
            night.kill()  # where it has ended this does nothing
            listening.join()
        time.sleep(1)
    done.requests, done.lost = stream.sent, len(stream.failures)
    if status or [one for one in at.running().items() if one in before.items()] or not done.seconds:
        sys.exit(f"the nightly ended with status {status}, and not all members were replaced\n{done.stages}")
    if f"page {version}" not in stream.answers:
        sys.exit(f"page {version} was never served: {dict(stream.answers)}")
    print(f"version {version}: {done.seconds:.1f} s, {done.requests} requests, {done.lost} lost", file=sys.stderr)
    return done


def listen(night: subprocess.Popen[str], done: Round, start: float) -> None:
    """Note when a stage is told to be over; what else is told, in case of a failure."""
    for line in night.stderr or ():
        for stage, told in STAGES.items():
            if re.match(told, line):
                done.stages.setdefault(stage, time.monotonic() - start)
        if line.startswith(("error", "fleet bench: ")) and "rolled" not in line:
            print(line, end="", file=sys.stderr)


def watch(at: Street, night: subprocess.Popen[str], before: dict[str, str], done: Round, start: float) -> None:
    """Note when so many members run another image under their own name, until all do or the nightly has ended."""
    ended = False
    while not done.seconds and not ended and time.monotonic() - start < PATIENCE_SECONDS:
        ended = night.poll() is not None  # asked before the look, so that the last one is of how it ended
        replaced = sum(before.get(name) != image for name, image in at.running().items())
        for wave, members in WAVES.items():
            if replaced >= members:
                done.stages.setdefault(wave, time.monotonic() - start)
        if replaced == MEMBERS:
            done.seconds = time.monotonic() - start
        time.sleep(0.2)


def table(rounds: list[Round]) -> None:
    """Where the time went: the median of what each stage took, from the end of the one before it."""
    print(
        f"\n{'':34}{'median':>8}{'min':>8}{'max':>8}   seconds, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    spans: dict[str, list[float]] = {}
    for one in rounds:
        last = 0.0
        for stage in (*STAGES, *WAVES):
            if stage in one.stages:
                spans.setdefault(stage, []).append(max(0.0, one.stages[stage] - last))
                last = one.stages[stage]
    spans["to the last member"] = [one.seconds for one in rounds]
    for stage, found in spans.items():
        print(f"{stage:34}{median(found):8.1f}{min(found):8.1f}{max(found):8.1f}")
    print()


def main() -> int:
    """Measure, print, and say by the exit code whether the claims hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how many newer packages (default 5)")
    times = parser.parse_args().rounds
    require("docker", "docker-registry", "skopeo", "mmdebstrap", "gpg", "dpkg-deb", root=True)
    report = Report()
    with street() as at:
        url = at.open()
        rounds = [patched(at, url, version) for version in range(2, times + 2)]
        told = at.asked("latency")
    table(rounds)
    closed = {
        line["kind"]: f"{line['fixes'] - line['open']} of {times}"
        for line in told["lines"] if line["name"] in (IMAGE, "bench")
    }  # fmt: skip
    print(f"closed by the ledger: {closed.get('image')} in the image, {closed.get('fleet')} in the fleet")
    print(f"{sum(one.requests for one in rounds)} requests in {times} rounds")
    report.claim("seconds to the last of 20, median", median(one.seconds for one in rounds), MOST_SECONDS)
    report.claim("requests lost", sum(one.lost for one in rounds), 0)
    missing = sum(told != f"{times} of {times}" for told in (closed.get("image"), closed.get("fleet")))
    report.claim("fixes that the ledger does not say to be closed", missing, 0)
    return int(report.failed)


if __name__ == "__main__":
    end(main)
