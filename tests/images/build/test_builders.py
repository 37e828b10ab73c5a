"""The builders: images as functions of their inputs, really built from packages, with nothing left over."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import tarfile
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from hardening.foundation.errors import ContentError, OutsideError
from hardening.foundation.limits import Limit
from hardening.foundation.process import run
from hardening.foundation.settings import ROOT, Packages, Settings
from images import build as builders
from images.build import BuildJob, Built, bootstrap, build, build_steps, buildkit, dockerfile
from images.build.config import image_config, seconds, stamp
from images.model import Bootstrap
from images.packages import debian
from images.packages.index import PackageIndex
from images.plan.upstream import Upstream
from images.store import layers
from images.store.merge import Merged
from images.store.oci import LAYER, Store
from tests.support.archive import Archive
from tests.support.building import definition, job
from tests.support.loop import until
from tests.support.publishing import NOW, running_registry

GOLDEN = 'base = { golden = "parent" }\n'
STATIC = 'base = { bootstrap = { family = "debian", suite = "trixie", variant = "static" } }\n'
MINBASE = 'base = { bootstrap = { family = "debian", suite = "trixie" } }\n'
VENDOR = "org.opencontainers.image.vendor"
NGINX = ROOT / "images/definitions/nginx-unprivileged"


def test_a_child_takes_over_what_its_definition_leaves_empty() -> None:
    """Environment by key, user, who made it; a new entrypoint drops the base's command, as Docker does. Its other
    labels do not go over: they would make the child's containers members of a fleet.
    """
    base = {
        "config": {"Env": ["PATH=/bin", "A=1"], "User": "5", "Cmd": ["sh"], "Labels": {"l": "1", VENDOR: "we"}},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:1"]},
        "history": [{"created_by": "base"}],
    }
    text = GOLDEN + 'entrypoint = ["run"]\nports = ["80"]\n[environment]\nA = "2"\nB = "3"\n'
    config = image_config(definition(text), "linux/arm64", base, ["sha256:2"], 86400, "step")
    assert config["config"] == {
        "Env": ["PATH=/bin", "A=2", "B=3"],
        "User": "5",
        "Labels": {VENDOR: "we"},
        "Entrypoint": ["run"],
        "ExposedPorts": {"80/tcp": {}},
    }
    assert config["architecture"] == "arm64"
    assert config["rootfs"]["diff_ids"] == ["sha256:1", "sha256:2"]
    assert [item["created_by"] for item in config["history"]] == ["base", "step"]
    assert config["created"] == "1970-01-02T00:00:00Z"


def test_a_health_check_is_written_as_docker_reads_it_and_a_bases_is_switched_off() -> None:
    """Nanoseconds; and a reason for none overrides an inherited check."""
    text = GOLDEN + '[healthcheck]\ncommand = ["check"]\ninterval = "5s"\n'
    with_check = image_config(definition(text), "linux/amd64", None, [], 0, "")
    assert with_check["config"]["Healthcheck"] == {
        "Test": ["CMD", "check"], "Interval": 5_000_000_000, "Timeout": 3_000_000_000, "Retries": 3,
    }  # fmt: skip
    reason = GOLDEN + '[healthcheck]\nnone_because = "a batch job ends"\n'
    without = image_config(definition(reason), "linux/amd64", with_check, [], 0, "")
    assert without["config"]["Healthcheck"] == {"Test": ["NONE"]}
    silent = image_config(definition(GOLDEN), "linux/amd64", with_check, [], 0, "")
    assert silent["config"]["Healthcheck"] == with_check["config"]["Healthcheck"]


def test_dates_are_seconds_and_back() -> None:
    """What a date says survives both ways; fractions of a second are dropped."""
    assert seconds(stamp(1_700_000_000)) == 1_700_000_000
    assert seconds("2024-05-06T07:08:09.123456789Z") == 1_714_979_289


def rendered(text: str, body: str, tmp_path: Path) -> str:
    """What is wrong with a Dockerfile.j2 of a definition."""
    (tmp_path / "Dockerfile.j2").write_text(body)
    values = dockerfile.values(definition(text), "sha256:" + "a" * 64, ("x",), 1)
    return dockerfile.problem(build_steps.render(tmp_path / "Dockerfile.j2", values), values)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("FROM b\nUSER 0\n{}\nRUN own", True),
        ("FROM b\nRUN own\n{}", False),
        ("FROM b\nWORKDIR /x\n{}", False),
        ("FROM b\n{}\nfrom b\nRUN own\n{}", False),
        ("FROM b\nRUN own\nFROM b\n{}", True),
    ],
)
def test_whether_the_planned_packages_are_the_lowest_layer(text: str, first: bool) -> None:
    """Then byte code that comes with it is theirs."""
    step = dockerfile.install(definition(GOLDEN), 1)
    assert dockerfile.installs_first(text.format(step, step), step) == first


def test_steps_bring_no_byte_code_of_packaged_modules(tmp_path: Path) -> None:
    """Python runs it whatever it was made of, if only it names its source: RUN could replace what `ssl` does."""
    folder = "usr/lib/python3.13/__pycache__"
    (tmp_path / "tree" / folder).mkdir(parents=True)
    (tmp_path / "tree" / folder / "old.cpython-313.pyc").touch()

    def merged(*tars: tuple[str, ...]) -> Merged:
        for number, names in enumerate(tars):
            with tarfile.open(tmp_path / str(number), "w") as tar:
                for name in names:
                    tar.addfile(tarfile.TarInfo(f"{folder}/{name}" if "/" not in name else name))
        paths = [tmp_path / str(number) for number in range(len(tars))]
        return Merged(paths, lambda _: False, lambda _: True)

    ours, step = "ssl.cpython-313.pyc", ("own.cpython-313.pyc", "opt/venv/lib/python3.13/__pycache__/x.pyc")
    with merged((ours,), step) as kept:
        buildkit.keep_byte_code(tmp_path, kept, tmp_path / "tree", 1)
        assert [*kept.chosen] == [f"{folder}/{ours}", step[1]]
    for first, changes in (
        (1, ((ours,), (ours,))),
        (1, ((), ("old.cpython-313.pyc",))),
        (0, (("old.cpython-313.pyc",),)),
    ):
        with (
            merged(*changes) as changed,
            pytest.raises(ContentError, match=r"changed byte code(?s:.*)__pycache__/\w+\."),
        ):
            buildkit.keep_byte_code(tmp_path, changed, tmp_path / "tree", first)


STEPS = '{%% extends "Dockerfile.j2" %%}{%% block steps %%}%s{%% endblock %%}'


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('{% extends "Dockerfile.j2" %}', ""),
        ('{% extends "Dockerfile.j2" %}{% block steps %}RUN --network=none true{% endblock %}', ""),
        ('{% extends "Dockerfile.j2" %}{% block steps %}ENV A=1{% endblock %}', "ENV belongs in image.toml"),
        ('{% extends "Dockerfile.j2" %}{% block packages %}{% endblock %}', "planned packages are not installed"),
        (STEPS % "ENV\tA=1", "ENV belongs in image.toml"),
        (STEPS % "env A=1", "ENV belongs in image.toml"),
        (STEPS % "RUN true \\\n  && env \\\n  ENV \\\n# a word\n  CMD", ""),
        (STEPS % "RUN true\\ \n\nENV A=1", ""),
        (STEPS % "RUN true\n# continued \\\nENV A=1", "ENV belongs in image.toml"),
        (STEPS % 'SHELL ["/bin/true"]', "SHELL would run"),
        (STEPS % "RUN cat <<END\nENV A=1\nEND", "here-document"),
        (STEPS % "COPY <<-'END' /x\nhere\nEND", "here-document"),
        (STEPS % "RUN test $((1 << 2)) = 4", ""),
        (STEPS % "RUN --network=host true", "steps have no network"),
        (STEPS % "RUN --mount=type=cache,target=/x --network=default true", "steps have no network"),
        (STEPS % "RUN \\\n  --network=host true", "steps have no network"),
        (STEPS % "RUN curl --network=host", ""),
        (STEPS % "ADD https://example.com/x /x", "ADD from the network"),
        (STEPS % "ADD git@example.com:x/y.git /x", "ADD from the network"),
        (STEPS % "COPY --from=busybox /bin/sh /bin/sh", "COPY takes files from busybox, which is neither"),
        (STEPS % "COPY --chown=1:1 --from=r.example.com/a:1 /x /x", "COPY takes files from r.example.com/a:1"),
        (STEPS % "copy --FROM=busybox /x /x", "takes files from busybox"),
        (STEPS % 'COPY --"from=busybox" /x /x', "COPY with quotes in its flags"),
        (STEPS % "COPY --fr\\om=busybox /x /x", "COPY with quotes in its flags"),
        (STEPS % "RUN --mount=type=bind,from=busybox,target=/x true", "RUN takes files from busybox"),
        (STEPS % "RUN --mount=from=busybox,target=/x true", "RUN takes files from busybox"),
        (STEPS % "RUN echo --from=busybox 'x' > /x", ""),
        (STEPS % "COPY --from={{ base }} /x /x", ""),
        (
            "FROM {{ base }}\nCOPY --from=a /x /x\nFROM {{ base }} AS a\n{{ install }}\n{{ harden }}",
            "takes files from a",
        ),
        ("FROM {{ base }}\nFROM {{ base }}\n{{ install }}\nCOPY --from=0 /x /x\n{{ harden }}", ""),
        ("FROM {{ base }} as A\nFROM {{ base }}\n{{ install }}\nCOPY --from=a /x /x\n{{ harden }}", ""),
        (STEPS % "FROM scratch", "FROM scratch is not the planned base"),
        ("# syntax=example.com/other\nFROM {{ base }}\n{{ install }}\n{{ harden }}", "directive"),
        ("# escape=`\nFROM {{ base }}\n{{ install }}\n{{ harden }}", "directive"),
        ("FROM {{ base }}\n{{ install }}\nRUN true \\\n{{ harden }}\n", "hardening step is missing"),
        ("FROM {{ base }} AS a\n{{ install }}\nFROM {{ base }}\n{{ harden }}", "planned packages are not installed"),
        ("FROM {{ base }} AS a\nRUN true\nFROM {{ base }}\n{{ install }}\nCOPY --from=a /x /x\n{{ harden }}", ""),
        ("FROM {{ base }}\n{{ install }}\n", "hardening step is missing"),
        ("FROM {{ base }}\n{{ install }}\n{{ harden }}\nRUN chmod 4755 /bin/sh\n", "must be the last"),
    ],
)
def test_a_dockerfile_cannot_leave_the_hardening_out(body: str, problem: str, tmp_path: Path) -> None:
    """Nor undo it, nor set what image.toml sets."""
    found = rendered(GOLDEN + 'packages = ["xx"]', body, tmp_path)
    assert problem in found
    assert bool(problem) == bool(found)


def test_no_step_of_a_build_has_a_network(own: PackageIndex, tmp_path: Path) -> None:
    """Whatever its Dockerfile says or leaves out."""
    command = buildkit.command(static_job(own, tmp_path), "sha256:a", tmp_path / "Dockerfile", tmp_path / "output")
    assert command[command.index("--network") + 1] == "none"
    assert command[command.index("--ulimit") + 1] == f"data={8 << 30}", "what a process of a step may take"


def test_a_mistake_in_a_template_names_file_and_value(tmp_path: Path) -> None:
    """And the values that there are."""
    (tmp_path / "Dockerfile.j2").write_text("FROM {{ bse }}")
    with pytest.raises(ContentError, match=r"Dockerfile.j2: 'bse' is undefined") as error:
        build_steps.render(tmp_path / "Dockerfile.j2", {"base": "x"})
    assert "base" in error.value.hint


def test_a_tool_that_never_ends_is_ended_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all that it began: a step that waits for something would hold up this night and every one after it."""
    monkeypatch.setattr(build_steps, "BUILD_SECONDS", Limit("build.seconds", 1, "seconds"))
    sleeps, app = f"sleep {600 + os.getpid()}", SimpleNamespace(name="app")
    with pytest.raises(OutsideError, match=r"sh, which builds app, exceeds the limit build\.seconds"):
        build_steps.run_bound(app, ["sh", "-c", f"{sleeps} & wait"], {}, "hint")  # type: ignore[arg-type]
    until(lambda: run(["pgrep", "-f", f"^{sleeps}"], ok=(0, 1)).status == 1, "the end of all")


def test_each_base_has_its_builder() -> None:
    """And no builder is without a base."""
    found = [builders.builder_of(definition(text)) for text in (MINBASE, STATIC, GOLDEN)]
    for machine in ({}, {"builder": "mkosi"}):
        found.append(builders.builder_of(definition(MINBASE, kind="machine", machine=machine)))
    assert found == ["bootstrap", "static", "buildkit", "machine", "mkosi"]
    modules = Path(str(builders.__file__)).parent.glob("*.py")
    made = {file.stem for file in modules if re.search(r"(?m)^def build\(job: BuildJob\) -> Built:", file.read_text())}
    assert made - {"__init__"} == set(found)


def test_a_wrong_architecture_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named with what this machine is, and what would help."""
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(OutsideError, match="cannot build linux/arm64 on this machine, which is riscv64") as error:
        builders.require_platform("linux/arm64")
    assert "qemu" in error.value.hint


# --- static images from an archive of our own: no network, and fast -------------------------------------------------


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> PackageIndex:
    """An index over a small archive."""
    base = tmp_path_factory.mktemp("own")
    archive = Archive(base / "archive")
    archive.add("base-files", files={"/etc/os-release": "ID=debian\n"})
    archive.add(
        "ca-certificates",
        files={"/usr/share/ca-certificates/m/b.crt": "B\n", "/usr/share/ca-certificates/m/a.crt": "A"},
    )
    archive.publish()
    packages = Packages(mirror=archive.uri, suites=("./",), keyring=archive.keyring)
    return PackageIndex(Settings(state=base / "state", retry_for="0s", packages=packages))


def static_job(own: PackageIndex, tmp_path: Path, more: str = "", work: str = "work") -> BuildJob:
    wanted = definition(f'packages = ["base-files", "ca-certificates"]\n{more}\n{STATIC}')
    folder = tmp_path / "folder"
    folder.mkdir(parents=True, exist_ok=True)
    return job(own, Store(tmp_path / "store"), wanted, folder, tmp_path / work)


@pytest.mark.needs("root", "apt-get", "gpg")
def test_what_bootstraps_meets_the_systems_python_before_any_other(
    own: PackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mmdebstrap starts a filter in Python for each package that it unpacks itself, which any other may break."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin/python3").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    tree = tmp_path / "tree"
    told = ["sh", "-c", 'mkdir -p "$0/etc"; command -v python3 >"$0/etc/python"']
    monkeypatch.setattr(bootstrap, "command", lambda _job, place, *_: [*told, str(place)])
    static = static_job(own, tmp_path)
    static.work.mkdir(exist_ok=True)
    bootstrap.make_tree(static, tree, 1)
    assert (tree / "etc/python").read_text() == "/usr/bin/python3\n"


@pytest.mark.needs("root", "apt-get", "gpg")
def test_a_static_image_is_its_packages_and_nothing_else(own: PackageIndex, tmp_path: Path) -> None:
    """No shell, no apt; scanners read the packages from dpkg's status; the authorities are one file."""
    built = build(static_job(own, tmp_path))
    assert [package.name for package in built.packages] == ["base-files", "ca-certificates"]
    assert {p.version for p in debian.installed((built.tree / "var/lib/dpkg/status").read_text())} == {"1.0"}
    assert (built.tree / "etc/ssl/certs/ca-certificates.crt").read_text() == "A\nB\n"
    assert not list(built.tree.glob("etc/apt*"))
    assert (built.tree / "etc/shadow").stat().st_mode & 0o777 == 0o640
    assert built.created.timestamp() == 1_700_000_000


@pytest.mark.needs("root", "apt-get", "gpg")
@pytest.mark.parametrize("mask", [0o027, 0o077])
def test_the_mask_of_whoever_builds_does_not_reach_the_image(own: PackageIndex, tmp_path: Path, mask: int) -> None:
    """Hardened hosts give root a mask that would leave an image's files unreadable, and another digest."""
    usual = build(static_job(own, tmp_path / "usual"))
    before = os.umask(mask)
    try:
        built = build(static_job(own, tmp_path / "strict"))
        assert os.umask(mask) == mask, "given back"
    finally:
        os.umask(before)
    assert built.digest == usual.digest
    assert (built.tree / "var/lib/dpkg/status").stat().st_mode & 0o777 == 0o644


@pytest.mark.needs("root", "apt-get", "gpg")
def test_the_same_inputs_give_the_same_image_later(own: PackageIndex, tmp_path: Path) -> None:
    """Two builds, seconds apart, in other directories and stores."""
    first = build(static_job(own, tmp_path / "one"))
    time.sleep(1.1)
    assert build(static_job(own, tmp_path / "two")).digest == first.digest


@pytest.mark.needs("root", "apt-get", "gpg")
def test_files_of_the_definition_go_in_with_mode_and_owner(own: PackageIndex, tmp_path: Path) -> None:
    """Templates are rendered; a link in the image does not lead them out of it."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/motd.j2").write_text("this is {{ definition.name }}\n")
    more = 'files = [{ source = "motd.j2", path = "/etc/motd", mode = "0600", owner = "5:6" }]'
    status = (build(static_job(own, tmp_path, more)).tree / "etc/motd").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (5, 6, 0o600)
    assert (tmp_path / "work/tree/etc/motd").read_text() == "this is example\n"


@pytest.mark.needs("root", "apt-get", "gpg")
@pytest.mark.parametrize("source", ["absent", "../outside", "/etc/passwd"])
def test_files_come_from_the_definitions_folder_only(own: PackageIndex, tmp_path: Path, source: str) -> None:
    """Neither from above it nor from anywhere else on this machine."""
    more = f'files = [{{ source = "{source}", path = "/etc/motd" }}]'
    with pytest.raises(ContentError, match="is not a file in the definition's folder"):
        build(static_job(own, tmp_path, more))


@pytest.mark.needs("root", "apt-get", "gpg")
def test_an_image_with_other_packages_than_planned_is_not_made(own: PackageIndex, tmp_path: Path) -> None:
    """The plan is the truth: what was built is compared with it, and no manifest is written."""
    wanted = static_job(own, tmp_path)
    planned = dataclasses.replace(
        wanted, packages=(dataclasses.replace(wanted.packages[0], version="2"), wanted.packages[1])
    )
    debs = dict(zip(planned.packages, wanted.debs.values(), strict=True))
    with pytest.raises(OutsideError, match="other packages than planned") as error:
        build(dataclasses.replace(planned, debs=debs))
    assert "base-files: planned 2, built 1.0" in error.value.evidence
    assert not [blob for blob in wanted.store.blobs.iterdir() if b'"layers"' in blob.read_bytes()]


# --- real ones ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> PackageIndex:
    """The host's own archive."""
    return PackageIndex(Settings(state=tmp_path_factory.mktemp("real"), retry_for="30s"))


@pytest.fixture(scope="module")
def host() -> str:
    """An engine that can build."""
    if given := os.environ.get("GOLDSMITH_TEST_DOCKER") or os.environ.get("DOCKER_HOST"):
        return given
    from hardening.foundation.settings import load_settings
    from pipelines.host.provision import docker_host

    return docker_host(load_settings(), for_builds=True)


def minbase(real: PackageIndex, tmp: Path) -> BuildJob:
    return job(real, Store(tmp / "store"), definition(MINBASE, "parent"), tmp, tmp / "work")


@pytest.fixture(scope="module")
def base(real: PackageIndex, tmp_path_factory: pytest.TempPathFactory) -> tuple[Built, Store]:
    """A bootstrapped system without any hardening, which hides nothing of what the builder does."""
    tmp = tmp_path_factory.mktemp("base")
    wanted = minbase(real, tmp)
    return build(wanted), wanted.store


real_build = pytest.mark.needs("root", "mirror", "mmdebstrap")


@pytest.mark.slow
@real_build
def test_a_bootstrapped_system_is_the_same_on_any_day(
    base: tuple[Built, Store], real: PackageIndex, tmp_path: Path
) -> None:
    """And in any place. Built twice, without hardening to tidy up; no file is newer than the newest package, none names
    today.
    """
    built, store = base
    assert build(minbase(real, tmp_path / "with a space")).digest == built.digest
    layer = store.layers_of(built.digest)[0]
    with layers.opened(store.blob(layer.digest), LAYER) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        newest = max(info.mtime for info in tar)
    assert newest <= built.created.timestamp() < time.time()
    today = str(int(time.time() // 86400))
    assert today not in (built.tree / "etc/shadow").read_text()


@pytest.mark.slow
@real_build
def test_a_bootstrapped_system_knows_only_the_signed_archive(base: tuple[Built, Store], real: PackageIndex) -> None:
    """Nothing of the repository it was made from, no logs, lists or caches."""
    tree = base[0].tree
    sources = [*tree.glob("etc/apt/sources.list"), *tree.glob("etc/apt/sources.list.d/*")]
    assert [path.name for path in sources] == ["debian.sources"]
    assert "Signed-By" in sources[0].read_text()
    assert run(["grep", "-rlE", "trusted=yes|mmdebstrap|copy:/", str(tree / "etc")], ok=(1,)).stdout == ""
    for leftover in ("var/lib/apt/lists/*_*", "var/log/*.log", "var/cache/apt/*", "etc/hostname", "etc/resolv.conf"):
        assert not list(tree.glob(leftover)), leftover


@pytest.mark.slow
@pytest.mark.needs("root", "mirror", "mmdebstrap", "docker")
def test_a_child_shares_its_parents_layers_and_keeps_nothing_of_the_build(
    base: tuple[Built, Store], real: PackageIndex, tmp_path: Path, host: str
) -> None:
    """Its one layer holds neither mount points nor what only the build needed; it names its parent's content."""
    built, store = base
    wanted = definition("", "nginx-unprivileged", **tomllib.loads((NGINX / "image.toml").read_text()))
    child = build(job(real, store, wanted, NGINX, tmp_path / "work", base=built, docker_host=host))
    parents, own = store.layers_of(built.digest), store.layers_of(child.digest)
    assert own[:-1] == parents
    manifest = store.read_json(child.digest)
    assert manifest["annotations"] == {"org.opencontainers.image.base.digest": built.digest}
    with layers.opened(store.blob(own[-1].digest), LAYER) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        names = {info.name for info in tar}
    assert "usr/sbin/nginx" in names
    assert not [
        n
        for n in names
        if n.startswith(("run/goldsmith", "tmp/", "var/log/apt", "var/lib/apt/lists/", "usr/sbin/policy"))
    ]
    assert not names & {"etc/resolv.conf", "etc/hosts", "etc/hostname"}
    assert {p.name for p in child.packages} >= {p.name for p in built.packages} | {"nginx"}


@pytest.mark.slow
@pytest.mark.needs("root", "mirror", "mmdebstrap", "docker", "docker-registry", "skopeo")
def test_an_image_stands_on_an_upstream_tag(
    base: tuple[Built, Store], real: PackageIndex, tmp_path: Path, host: str
) -> None:
    """The upstream is Docker's own format with gzip layers, as most are; its packages are known by its own status."""
    built, store = base
    (tmp_path / "root/images/definitions").mkdir(parents=True)
    upstream = Upstream(
        real.settings.model_copy(update={"content": (tmp_path / "root",)}), Store(tmp_path / "store"), NOW
    )
    with running_registry(tmp_path / "registry") as address:
        reference = f"{address}/upstream/debian:13"
        layout = store.layout_for(built.digest, tmp_path / "layout")
        options = ["--quiet", "--format", "v2s2", "--dest-compress-format", "gzip", "--dest-tls-verify=false"]
        run(["skopeo", "copy", *options, f"oci:{layout}", f"docker://{reference}"])
        upstream.lock(reference, tmp_path / "root")
        upstream.fetch(reference)
    wanted = definition(f'packages = ["netbase"]\nbase = {{ image = "{reference}" }}')
    installed = upstream.packages(reference)
    packages = real.resolve(upstream.bootstrap(reference), wanted.packages, installed, upstream.locked(reference))
    assert [package.name for package in packages] == ["netbase"]
    folder = tmp_path / "root/images"
    plain = job(
        real,
        upstream.store,
        wanted,
        folder,
        tmp_path / "work",
        docker_host=host,
        inherited=installed,
        image=upstream.locked(reference),
    )
    child = build(dataclasses.replace(plain, upstream=upstream.locked(reference)))
    assert {p.name for p in child.packages} == {p.name for p in built.packages} | {"netbase"}
    assert (
        upstream.store.config(child.digest)["rootfs"]["diff_ids"][:-1]
        == store.config(built.digest)["rootfs"]["diff_ids"]
    )
    assert (child.tree / "etc/protocols").exists()


@pytest.mark.slow
@pytest.mark.needs("root", "mirror", "mmdebstrap", "docker")
def test_a_step_that_fails_is_shown_and_leaves_no_image(
    base: tuple[Built, Store], real: PackageIndex, tmp_path: Path, host: str
) -> None:
    """Its own words are the evidence; an engine that is not there is said, too."""
    body = '{% extends "Dockerfile.j2" %}{% block steps %}RUN echo so it broke >&2; exit 7{% endblock %}'
    folder = tmp_path / "definition"
    folder.mkdir()
    (folder / "Dockerfile.j2").write_text(body)
    before = set(base[1].blobs.iterdir())
    wanted = job(real, base[1], definition(GOLDEN), folder, tmp_path / "work", base=base[0], docker_host=host)
    with pytest.raises(ContentError) as wrong:
        build(wanted)
    assert "so it broke" in wrong.value.evidence
    absent = dataclasses.replace(wanted, work=tmp_path / "other", docker_host="unix:///nowhere.sock")
    absent.work.mkdir()
    with pytest.raises(OutsideError) as error:
        build(absent)
    assert "nowhere.sock" in error.value.evidence
    assert set(base[1].blobs.iterdir()) == before


def rebuilt(deb: Path, folder: Path) -> None:
    """Another .deb of the same name and version, with a program of somebody else's and checksums that fit it."""
    tree = folder.parent / f"{deb.name}-tree"
    run(["dpkg-deb", "--raw-extract", str(deb), str(tree)])
    program = next((tree / "usr/bin").iterdir())
    program.write_text("#!/bin/sh\n")
    name, records = program.relative_to(tree), tree / "DEBIAN/md5sums"
    kept = [line for line in records.read_text().splitlines() if not line.endswith(f"  {name}")]
    own = hashlib.md5(program.read_bytes(), usedforsecurity=False).hexdigest()
    records.write_text("\n".join([*kept, f"{own}  {name}", ""]))
    run(["dpkg-deb", "--root-owner-group", "--build", str(tree), str(folder / f"{deb.name.partition('_')[0]}.deb")])


@pytest.mark.slow
@pytest.mark.needs("root", "mirror", "mmdebstrap", "docker")
def test_packages_that_a_step_replaces_by_others_of_the_same_version_make_no_image(
    base: tuple[Built, Store], real: PackageIndex, tmp_path: Path, host: str
) -> None:
    """Their files fit their own checksums, so no control sees it: dpkg's records of each must be those of the base or
    of the planned .deb.
    """
    built, store = base
    folder = tmp_path / "definition"
    folder.mkdir()
    plain = definition(f'packages = ["hello"]\n{GOLDEN}')
    wanted = job(real, store, plain, folder, tmp_path / "work", base=built, docker_host=host)
    made = "usr/lib/python3.13/__pycache__"
    (folder / "Dockerfile.j2").write_text(STEPS % f"RUN mkdir -p /{made} && echo x | tee /{made}/x.pyc > /srv/x")
    image = build(wanted)
    assert image.packages, "as planned it is an image"
    assert [(image.tree / name).exists() for name in ("srv/x", f"{made}/x.pyc")] == [True, False]
    inherited = real.download(
        Bootstrap(family="debian", suite="trixie"), [p for p in built.packages if p.name == "hostname"]
    )
    for deb in (*inherited.values(), *wanted.debs.values()):
        rebuilt(deb, folder)
    planted = "touch /var/lib/dpkg/info/own.list $(printf '/var/lib/dpkg/info/\\377')"
    steps = f"COPY *.deb /opt/\nRUN dpkg -i /opt/*.deb && rm /opt/*.deb && {planted}"
    (folder / "Dockerfile.j2").write_text(STEPS % steps)
    before = set(store.blobs.iterdir())
    again = dataclasses.replace(wanted, work=tmp_path / "again")
    again.work.mkdir()
    with pytest.raises(OutsideError, match="holds other packages than planned") as error:
        build(again)
    names = [line.partition(":")[0] for line in error.value.evidence.splitlines()]
    assert names == [
        f"/var/lib/dpkg/info/{name}" for name in ("hello.md5sums", "hostname.md5sums", "own.list", "\\udcff")
    ]
    assert not [blob for blob in set(store.blobs.iterdir()) - before if b'"layers"' in blob.read_bytes()[:9999]]
