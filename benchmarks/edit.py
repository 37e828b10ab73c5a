"""One changed file in a child image: from the edit to the built and checked image, beside `docker build`."""

from __future__ import annotations

import json
import subprocess
import tempfile
from itertools import count
from pathlib import Path

from measure import INV, ROOT, Reading, Report, alternate, end, require, rounds, settings_for, timed

NAME, BASE = "bench-edit", "nginx-unprivileged"
PAGE = "/usr/share/nginx/html/page.html"
DEFINITION = f"""\
title = "Of a benchmark"
owner = "benchmarks"
kind = "container"
profile = "container-base"
base = {{ golden = "{BASE}" }}
tmpfs = ["/tmp"]
smoke = ["/usr/local/libexec/smoke"]
files = [{{ source = "page.html", path = "{PAGE}" }}]

[healthcheck]
command = ["/usr/local/bin/healthz"]
"""
DOCKERFILE = f"FROM goldsmith.invalid/bench:base\nCOPY page.html {PAGE}\n"
OURS, DOCKERS = "image.build, one changed file", "docker build of the same"


def main() -> int:
    """Measure, print where the time goes, and say by the exit code whether the claim holds."""
    times = rounds(5, __doc__ or "")
    require("docker", "mmdebstrap", root=True)
    with tempfile.TemporaryDirectory(prefix="goldsmith-bench-") as folder:
        content, state, plain = Path(folder, "content"), Path(folder, "state"), Path(folder, "plain")
        definition = content / "images/definitions" / NAME
        definition.mkdir(parents=True)
        (definition / "image.toml").write_text(DEFINITION)
        env = settings_for(state, content)
        numbers = count(1)

        def edit(file: Path) -> None:
            file.write_text(f"<!doctype html><title>edit</title>release {next(numbers)}\n")

        def ours() -> Reading:
            edit(definition / "page.html")
            return timed((*INV, "image.build", NAME), env)

        def dockers() -> Reading:
            edit(plain / "page.html")
            return timed((*docker, "build", "--quiet", "--tag", "goldsmith.invalid/bench:edited", str(plain)))

        ours()  # builds what it stands on
        plain.mkdir()
        (plain / "Dockerfile").write_text(DOCKERFILE)
        docker = ("docker", "--host", env["GOLDSMITH_DOCKER__BUILD_HOST"])
        _load_base(state, docker)
        dockers()
        report = Report(alternate({OURS: ours, DOCKERS: dockers}, times))
        edit(definition / "page.html")
        steps = _steps(env)
        subprocess.run(
            [*docker, "image", "rm", "--force", *map("goldsmith.invalid/bench:{}".format, ("base", "edited"))],
            check=False,
            stdout=subprocess.DEVNULL,
        )
    report.table()
    print(
        f"{report.ratio(OURS, DOCKERS):.1f} times docker build, which checks and starts nothing; where the time goes:"
    )
    for step, seconds in sorted(steps.items(), key=lambda found: -found[1]):
        print(f"  {seconds:6.2f} s  {step}")
    report.claim("seconds from the edit to the image", report.seconds(OURS), 3.0)
    return int(report.failed)


def _load_base(state: Path, docker: tuple[str, ...]) -> None:
    """Give the engine the golden base that our child stands on."""
    from hardening.foundation.settings import Settings
    from images.build.workspace import workspace
    from images.ledger import Ledger
    from images.scan.verify import load_into
    from images.store.oci import Store

    settings = Settings(state=state)
    base = Ledger.open(settings.database_url).latest_artifact(BASE, settings.platform)
    assert base
    with workspace(settings) as work:
        load_into(Store(state / "store"), base.digest, "goldsmith.invalid/bench:base", work, docker[-1])


def _steps(env: dict[str, str]) -> dict[str, float]:
    """The steps of one more build, and what the command takes beside them."""
    import os
    import time

    start = time.monotonic()
    done = subprocess.run(
        [*INV, "image.build", NAME, "--json"], cwd=ROOT, env={**os.environ, **env}, capture_output=True, check=True
    )
    whole = time.monotonic() - start
    [line] = [one for one in json.loads(done.stdout) if one["name"] == NAME]
    steps: dict[str, float] = line["steps"]
    return {**steps, "everything else of the command": whole - sum(steps.values())}


if __name__ == "__main__":
    end(main)
