"""The command line's contract: one clear error and an exit code by family, pure JSON on standard output, 80 columns."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from platform import machine

import pytest

import tasks
from hardening.foundation.process import run
from hardening.foundation.settings import ROOT
from tests.support.loop import CHILD, Answer, Goldsmith, definition

LOOP = CHILD.replace("debian-base", "{}")


@pytest.fixture
def empty(tmp_path: Path) -> Goldsmith:
    """A state in which nothing has ever happened, and an engine that does not exist."""
    return Goldsmith(tmp_path / "state", f"unix://{tmp_path}/no.sock")


@pytest.fixture(scope="module")
def apt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the package index is kept once it was fetched."""
    return tmp_path_factory.mktemp("apt")


@pytest.fixture
def indexed(empty: Goldsmith, apt: Path) -> Goldsmith:
    """The same, but that the package index is fetched no more than once."""
    empty.state.mkdir(mode=0o700)
    (empty.state / "apt").symlink_to(apt)
    return empty


def refused(answer: Answer, code: int) -> str:
    """The one error that was printed; nothing on standard output, no trace of Python."""
    assert answer.code == code, answer.err
    assert answer.out == ""
    assert "Traceback" not in answer.err
    return answer.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CHILD.replace("smoke", "smok"), "image.toml: smok: unknown key\n  hint: did you mean smoke?"),
        (
            CHILD + '[lifecycle]\nexpires_afer = "3d"',
            "lifecycle.expires_afer: unknown key\n  hint: did you mean expires_",
        ),
        (CHILD.replace('"tests"', "7"), "image.toml: owner: must be text, in quotes, not 7"),
        (CHILD.replace('owner = "tests"\n', ""), "image.toml: owner: required, but missing"),
        (
            CHILD.replace("debian-base", "debian-bse"),
            "base.golden: debian-bse is not a definition\n  hint: did you mean deb",
        ),
        (CHILD.replace("container-base", "container-bas"), "profile: unknown profile: container-bas"),
        (CHILD + "[profile_params.no-setuid]\nalow = []", "alow"),
        ("title = x", "image.toml: not TOML"),
        (CHILD.replace('"container"', '"vm"'), "kind: must be 'container' or 'machine', not 'vm'"),
    ],
)
def test_wrong_content_is_one_error_with_file_and_key(
    indexed: Goldsmith, tmp_path: Path, text: str, message: str
) -> None:
    """Unknown keys, wrong types, missing values and unknown names: exit code 2, where, and what was meant."""
    inv = indexed.with_(definition(tmp_path / "content", "c-wrong", text))
    assert message in refused(inv.here("image.plan", "c-wrong", "--json"), 2)


def test_a_missing_template_parameter_is_named(indexed: Goldsmith, tmp_path: Path) -> None:
    """A control whose file asks for a parameter that nobody gives: the control, the file and the parameter."""
    root = definition(tmp_path / "content", "c-needy", CHILD.replace('"container-base"', '"needy"'))
    control = root / "hardening/controls/needy"
    (control / "files").mkdir(parents=True)
    (control / "files/x.j2").write_text("port = {{ params.port }}\n")
    (control / "check.sh").write_text("echo seen\n")
    (control / "cases.toml").write_text('[[proof]]\ntitle = "t"\nevidence = "e"\n')
    (control / "control.toml").write_text(
        'title = "T"\nseverity = "low"\napplies_to = ["container"]\nowner = "us"\nrationale = "r"\ncost = "c"\n'
        '[[files]]\nsource = "x.j2"\npath = "/etc/x"\n[params.port]\ntype = "integer"\nhelp = "the port"\n'
    )
    profile = root / "hardening/profiles/needy.toml"
    profile.parent.mkdir()
    profile.write_text('title = "T"\nowner = "us"\ncontrols = [{ control = "needy" }]\n')
    error = refused(indexed.with_(root).here("image.plan", "c-needy"), 2)
    assert "needy" in error
    assert "port" in error


def test_a_circle_is_shown(empty: Goldsmith, tmp_path: Path) -> None:
    """Every name on the way round."""
    root = tmp_path / "content"
    for name, base in (("c-a", "c-b"), ("c-b", "c-c"), ("c-c", "c-a")):
        definition(root, name, LOOP.replace("{}", base))
    error = refused(empty.with_(root).here("image.build", "all", "--json"), 2)
    assert any(
        circle in error for circle in ("c-a → c-b → c-c → c-a", "c-b → c-c → c-a → c-b", "c-c → c-a → c-b → c-c")
    )


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("image.bild",), "No idea what 'image.bild' is!\n  hint: did you mean image.build"),
        (("setup", "image.bild", "all"), "did you mean image.build"),
        (("image.plan", "all", "--jsno"), "No idea what '--jsno' is!\n  hint: did you mean --json"),
        (("image.plan",), "hint: ./goldsmith image.plan --help shows"),
        (("fleet.check",), "hint: ./goldsmith fleet.check --help shows"),
        (("roll.simulate", "--seeds", "many"), "not a whole number: 'many'"),
        (("xyzzy",), "hint: ./goldsmith --list shows"),
        (("image.plan", "--name"), "--name needs a value\n  hint: ./goldsmith image.plan --help shows"),
        (("image.export", "debian-server"), "--output says which file to write\n  hint: --output debian-server.raw"),
    ],
)
def test_a_mistyped_task_or_flag_is_answered_with_the_nearest(
    empty: Goldsmith, typed: tuple[str, ...], said: str
) -> None:
    """Exit code 1, and what was meant, before anything is done."""
    assert said in refused(empty.here(*typed), 1)


@pytest.mark.parametrize("task", ["policy.preview", "waiver.new", "control.show"])
def test_a_task_tells_its_flags_where_help_stands_after_it(empty: Goldsmith, task: str) -> None:
    """With what each means, and also where the task takes words without a flag."""
    told = empty(task, "--help")
    assert told.code == 0
    assert "--json" in told.out
    assert "print JSON on standard output" in " ".join(told.out.split())


@pytest.mark.parametrize(
    ("task", "usage"),
    [
        ("image.plan", "image.plan NAME… [--options]"),
        ("policy.preview", "policy.preview [FILE] [--options]"),
        ("adopt", "adopt [WHAT]… [--options]"),
        ("schema", "schema [--options]"),
    ],
)
def test_help_says_what_stands_without_a_flag_and_fits_a_terminal(empty: Goldsmith, task: str, usage: str) -> None:
    """In the order in which it is typed."""
    told = empty.here("--help", task)
    assert (told.code, told.out.splitlines()[0]) == (0, f"Usage: ./goldsmith {usage}")
    assert max(map(len, told.out.splitlines())) <= 80


@pytest.mark.parametrize("arguments", ["--list", "image.list --json"])
def test_a_reader_that_has_enough_leaves_no_traceback(arguments: str, tmp_path: Path) -> None:
    """As `head` does; the exit code is 1, since not all was told. The reader is gone before anything is written."""
    pipe = tmp_path / "pipe"
    asked = f"{sys.executable} tasks.py {arguments} >&4; echo $? >&2"
    gone = f"mkfifo {pipe} && exec 3<>{pipe} 4>{pipe} 3>&- && {{ {asked}; }}"
    assert run(["sh", "-c", gone], cwd=ROOT, env={"GOLDSMITH_STATE": str(tmp_path / "state")}).stderr == "1\n"


AT_IMPORT = """
import os, signal, sys

class Stop:
    def find_spec(name, *_):
        if name == "{}":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Stop)
"""


@pytest.mark.parametrize("module", ["inspect", "invoke", "hardening.foundation.errors", "pipelines.wiring"])
def test_ctrl_c_before_a_command_has_begun_is_one_line_and_status_130(module: str, tmp_path: Path) -> None:
    """At an import of tasks.py itself, while the arguments are read, and in the task."""
    (tmp_path / "sitecustomize.py").write_text(AT_IMPORT.format(module))
    env = {"GOLDSMITH_STATE": str(tmp_path / "state"), "PYTHONPATH": str(tmp_path)}
    done = run([sys.executable, "tasks.py", "image.list"], cwd=ROOT, env=env, ok=range(-64, 256))
    assert (done.status, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_another_pipe_that_breaks_is_no_reader_that_has_enough(tmp_path: Path) -> None:
    """Our output is still read: what broke is said, and not passed over in silence."""
    code = "import tasks\ndef broken(*_): raise BrokenPipeError('another')\ntasks._Program.run = broken\ntasks.main()"
    argv = [sys.executable, "-c", code]
    done = run(argv, cwd=ROOT, env={"GOLDSMITH_STATE": str(tmp_path / "state")}, ok=range(256))
    assert "BrokenPipeError: another" in done.stderr


def test_help_says_that_a_flag_which_may_be_repeated_takes_a_value(empty: Goldsmith) -> None:
    """As it says of any other."""
    assert "-a STRING, --adopt=STRING" in empty.here("--help", "roll.plan").out


def test_a_process_ends_as_its_task_does(empty: Goldsmith) -> None:
    """Two of the others, asked of a process of their own: what the shell sees is what the task said."""
    for words, code in ((("image.bild",), 1), (("image.plan", "python"), 2)):
        answer = empty(*words)
        assert (answer.code, answer.out) == (code, "")
        assert answer == empty.here(*words)


def test_the_version_is_that_of_the_project(empty: Goldsmith) -> None:
    """`--version` names Goldsmith's, not Invoke's."""
    assert (
        f'version = "{empty("--version").out.removeprefix("Goldsmith ").strip()}"'
        in (ROOT / "pyproject.toml").read_text()
    )


@pytest.mark.parametrize(
    ("command", "nearest"),
    [
        (("image.build", "debian-bsae"), "no image is named debian-bsae\n  hint: did you mean debian-base"),
        (("image.plan", "python"), "did you mean python-runtime"),
        (("image.why", "nodejs-runtime"), "did you mean node-runtime"),
        (("image.verify", "x*"), "no image is named x*\n  hint: known: "),
        (("control.show", "no-setuit"), "did you mean no-setuid"),
        (("policy.show", "defualt"), "did you mean default"),
        (
            ("image.scan", "debian-base", "--policy", "defualt"),
            "unknown policy: defualt\n  hint: did you mean default",
        ),
        (("image.publish", "all", "--policy", "dmo"), "unknown policy: dmo\n  hint: did you mean demo"),
        (
            ("control.check", "debian-base", "--control", "no-setuit"),
            "has no control no-setuit\n  hint: did you mean no-set",
        ),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(empty: Goldsmith, command: tuple[str, ...], nearest: str) -> None:
    """Exit code 2, whatever was asked for."""
    assert nearest in refused(empty.here(*command), 2)


def test_one_broken_definition_does_not_hide_the_others(empty: Goldsmith, tmp_path: Path) -> None:
    """The list is printed, the error names the file, and the exit code says whose it is."""
    answer = empty.with_(definition(tmp_path / "content", "broken", "title = ")).here("image.list", "--json")
    assert (answer.code, {line["name"] for line in answer.json} >= {"debian-base", "debian-server"}) == (2, True)
    assert "broken/image.toml: not TOML" in answer.err


@pytest.mark.parametrize("command", [("setup",), ("image.list",), ("image.build", "debian-base")])
def test_a_state_directory_that_cannot_be_used_is_one_error(empty: Goldsmith, command: tuple[str, ...]) -> None:
    empty.state.write_text("a file")
    said = refused(empty.here(*command), 4)
    assert f"the state directory {empty.state} cannot be used: File exists\n  hint: set `state`" in said


@pytest.mark.needs("root", "unshare")
@pytest.mark.parametrize("command", [("image.plan", "debian-base"), ("image.build", "debian-base"), ("report",)])
def test_a_state_directory_that_cannot_be_written_is_one_error(empty: Goldsmith, command: tuple[str, ...]) -> None:
    """On a read-only disk, which root meets too: exit code 4, before anything is tried."""
    empty.state.mkdir()
    said = refused(empty(*command, mounts=f"mount -t tmpfs -o ro,mode=0700 tmpfs {empty.state}"), 4)
    assert f"the state directory {empty.state} cannot be used: it cannot be written\n  hint: set `state`" in said


@pytest.mark.parametrize(("command", "part"), [(("image.plan", "debian-base"), "apt"), (("report",), "reports")])
def test_a_part_of_the_state_that_cannot_be_used_is_one_error(
    empty: Goldsmith, command: tuple[str, ...], part: str
) -> None:
    """Exit code 4, the path, and what to do."""
    empty.state.mkdir(mode=0o700)
    (empty.state / part).write_text("a file where a folder should be")
    said = refused(empty.here(*command), 4)
    assert re.search(
        rf"^{empty.state}/{part}\S* cannot be used: \w.*\n  hint: is it another user's", said, re.MULTILINE
    )


def test_a_build_that_cannot_use_its_state_is_told_without_a_trace_of_python(empty: Goldsmith) -> None:
    """As any other command, with the image's line beside it."""
    empty.state.mkdir(mode=0o700)
    (empty.state / "apt").write_text("a file where a folder should be")
    answer = empty.here("image.build", "debian-base", "--json")
    assert (answer.code, answer.by_name()["debian-base"]["action"]) == (4, "failed")
    assert f"{empty.state}/apt/" in answer.err
    assert "  | " not in answer.err


def test_a_wrong_setting_is_named(empty: Goldsmith) -> None:
    """From the environment as from the file."""
    assert "GOLDSMITH_NOW: invalid date: soon" in refused(empty.with_(now="soon").here("image.list"), 2)
    assert "parallel" in refused(empty.with_(parallel="two").here("image.list"), 2)
    assert "platform" in refused(empty.with_(platform="linux/arm64").here("image.plan", "debian-static"), 2)


@pytest.mark.needs("apt-get")
def test_an_unreachable_mirror_is_one_error(empty: Goldsmith) -> None:
    """Exit code 4, the address, what to check; no half index stays."""
    inv = empty.with_(packages__mirror="http://127.0.0.1:9/debian")
    error = refused(inv("image.plan", "debian-base", "--json"), 4)
    assert error.startswith("reading the package index and planning 1 image(s)")
    assert "package index of trixie could not be fetched" in error
    assert "127.0.0.1" in error
    assert "hint: check the network, settings packages.mirror" in error
    assert not list(empty.state.glob("apt/*/fetched"))


@pytest.mark.slow
@pytest.mark.needs("root", "docker", "mmdebstrap", "mirror")
class TestOnABuiltHouse:
    """What needs the index of the real archive, or images."""

    def test_an_unreachable_engine_is_one_error_and_nothing_is_half_done(
        self, house: Goldsmith, tmp_path: Path
    ) -> None:
        """Exit code 4 and the address; what has not changed needs no engine."""
        inv = house.fork(tmp_path / "state").with_(docker__host=f"unix://{tmp_path}/no.sock")
        blobs = inv.blobs()
        assert inv("image.build", "all", "--json").code == 0
        answer = inv("image.build", "debian-static", "--no-cache", "--json")
        assert answer.code == 4
        assert f"{tmp_path}/no.sock does not answer" in answer.err
        assert answer.by_name()["debian-static"]["action"] == "failed"
        assert (inv.blobs(), inv.leftovers()) == (blobs, [])

    def test_another_architecture_is_one_error(self, house: Goldsmith, tmp_path: Path) -> None:
        """A definition for another platform than this run's is refused by name; others are built all the same."""
        root = definition(tmp_path / "content", "c-arm", 'platforms = ["linux/arm64"]\n' + CHILD)
        definition(root, "c-sound")
        answer = house.fork(tmp_path / "state").with_(root)("image.build", "c-*", "--json")
        assert answer.code == 2
        assert "platforms: made for linux/arm64, not for linux/amd64" in answer.err
        assert {line["name"]: line["action"] for line in answer.json} == {
            "debian-base": "unchanged", "c-arm": "failed", "c-sound": "built",
        }  # fmt: skip

    @pytest.mark.parametrize(("name", "megabytes"), [("debian-static", 12), ("debian-base", 60)])
    def test_a_full_disk_is_one_error_and_nothing_is_half_done(
        self, house: Goldsmith, tmp_path: Path, name: str, megabytes: int
    ) -> None:
        """Exit code 4 and the directory; no artifact, no blob, no temporary tree."""
        state = tmp_path / "small"
        state.mkdir()
        mounts = (
            f"mount -t tmpfs -o mode=0700,size={megabytes}m tmpfs {state} && mkdir {state}/apt && "
            f'mount --bind "$SHARED_APT" {state}/apt'
        )
        look = f"cd {state}; find work store -type f 2>/dev/null | sed 's/^/left: /' >&2"
        # By a variable: tests beside this one look for command lines that name the shared state.
        small = Goldsmith(state, house.docker_host, settings={"SHARED_APT": f"{house.state}/apt"})
        answer = small("image.build", name, "--json", mounts=mounts, then=look)
        assert answer.code == 4, answer.err
        assert answer.by_name()[name]["action"] == "failed"
        assert f"the disk that holds {state}" in answer.err
        assert "left: " not in answer.err

    @pytest.mark.needs("docker-registry", "skopeo")
    def test_a_full_disk_of_the_embedded_registry_is_the_same_error(self, house: Goldsmith, tmp_path: Path) -> None:
        """It answers 404 or 500 then, and blames neither the address nor the network."""
        inv = house.fork(tmp_path / "state")
        folder = inv.state / "registry"
        folder.mkdir(mode=0o700)
        mounts = f"mount -t tmpfs -o mode=0700,size=1m tmpfs {folder}"
        stop = f"kill $(cut -d' ' -f1 {folder}/docker-registry.pid)"
        words = ("image.publish", "debian-static", "--policy", "demo", "--json")
        answer = inv(*words, mounts=mounts, then=stop)
        assert (answer.code, answer.by_name()["debian-static"]["action"]) == (4, "failed")
        assert "\na disk is full\n" in answer.err
        assert "no space left on device\n  hint: free space" in answer.err

    def test_a_full_disk_while_the_index_is_fetched_is_the_same_error(self, house: Goldsmith, tmp_path: Path) -> None:
        """Exit code 4 and the directory."""
        state = tmp_path / "tiny"
        state.mkdir()
        tiny = Goldsmith(state, house.docker_host)
        answer = tiny("image.plan", "debian-base", mounts=f"mount -t tmpfs -o mode=0700,size=4m tmpfs {state}")
        assert f"the disk that holds {state}" in refused(answer, 4)

    def test_an_unknown_package_is_named_with_the_nearest(self, house: Goldsmith, tmp_path: Path) -> None:
        """And the images that do not ask for it are planned all the same by their own names."""
        root = definition(tmp_path / "content", "c-typo", 'packages = ["tzdat"]\n' + CHILD)
        inv = house.with_(root)
        error = refused(inv("image.plan", "c-typo"), 2)
        assert "no package tzdat in trixie" in error
        assert "tzdata" in error
        answer = inv("image.build", "c-typo", "--json")
        assert (answer.code, answer.by_name()["c-typo"]["action"]) == (2, "failed")

    @pytest.mark.parametrize(
        "command",
        [
            ("image.list",), ("image.plan", "all"), ("image.build", "all"), ("image.why", "python-runtime"),
            ("image.verify", "debian-base"), ("control.list",), ("control.show", "no-setuid"), ("policy.show", "all"),
            ("fleet.list",),
        ],
    )  # fmt: skip
    def test_json_is_all_that_stands_on_standard_output_and_tables_fit(
        self, house: Goldsmith, command: tuple[str, ...]
    ) -> None:
        """Programs read standard output as it is; people read 80 columns, and no cell is cut."""
        assert isinstance(house(*command, "--json").json, list | dict)
        table = house(*command)
        assert table.code == 0, table.err
        assert max((len(line) for line in table.out.splitlines()), default=0) <= 80
        assert "…" not in table.out

    def test_progress_stands_on_standard_error(self, house: Goldsmith, tmp_path: Path) -> None:
        """What is built and checked is told while standard output waits for the result."""
        inv = house.fork(tmp_path / "state")
        answer = inv("image.build", "debian-static", "--no-cache")
        assert answer.code == 0
        assert "debian-static: building, because --no-cache was given" in answer.err
        assert "debian-static: verifying" in answer.err
        assert "building, because" not in answer.out
        assert "built" in answer.out


def test_a_platform_that_this_machine_cannot_run_is_one_error_before_anything_else(
    empty: Goldsmith, tmp_path: Path
) -> None:
    """However many images were asked for: exit code 4, what this machine is, what would help; nothing was fetched."""
    other = "linux/amd64" if machine() == "aarch64" else "linux/arm64"
    if any(Path("/proc/sys/fs/binfmt_misc").glob("qemu-*")):
        pytest.skip("this machine runs programs of other platforms")
    head = f'platforms = ["{other}"]\n{CHILD}'
    root = definition(tmp_path / "content", "c-one", head)
    definition(root, "c-two", head)
    inv = empty.with_(root, platform=other)
    said = refused(inv.here("image.build", "c-*", "--json"), 4)
    assert said.count(f"cannot build {other} on this machine, which is {machine()}") == 1
    assert "hint: install qemu-user-static" in said
    assert not (empty.state / "apt").exists()


def test_every_command_that_takes_one_name_takes_several(empty: Goldsmith) -> None:
    """Flags may stand anywhere; its help says so."""
    tasks_of_one = [name for name in tasks.namespace.task_names if len(tasks.namespace[name].positional or ()) == 1]
    assert len(tasks_of_one) > 40
    for name in tasks_of_one:
        assert tasks._typed([name, "a", "b"]) == [name, "a\nb"]
        assert re.match(rf"Usage: \./goldsmith {name} [A-Z]+… ", empty.here("--help", name).out), name
    assert tasks._typed(["image.build", "a", "--policy", "p", "b", "--json"]) == [
        "image.build", "a\nb", "--policy", "p", "--json",
    ]  # fmt: skip
    assert tasks._typed(["waiver.new", "a", "b"]) == ["waiver.new", "a", "b"]


def test_several_names_are_one_answer_or_one_call_each(empty: Goldsmith) -> None:
    """What lists prints one list; what acts on one does each in turn, and prints no two JSON values."""
    policies = empty.here("policy.show", "machine", "default", "--json")
    assert [policy["name"] for policy in policies.json] == ["machine", "default"]
    controls = empty.here("control.show", "no-setuid", "sticky-tmp")
    assert [line for line in controls.out.splitlines() if re.fullmatch(r"[a-z-]+ \(\w+\)", line)] == [
        "no-setuid (high)", "sticky-tmp (medium)",
    ]  # fmt: skip
    assert "--json with 2 names: no-setuid, sticky-tmp" in refused(
        empty.here("control.show", "no-setuid", "sticky-tmp", "--json"), 1
    )
    for flag, command in {
        "form openvex": ["waiver.export", "a", "b"], "form json": ["iam.policy", "roller", "auditor"],
        "markdown": ["roll.plan", "a", "b", "--markdown"], "watch": ["roll.status", "a", "b", "--watch"],
    }.items():  # fmt: skip
        assert f"--{flag} with 2 names: {command[1]}, {command[2]}" in refused(empty.here(*command), 1)
    assert "no control is named no-setuidd" in refused(empty.here("control.test", "no-setuid", "no-setuidd"), 2)


def test_a_name_that_fails_stops_no_other_and_the_worst_exit_code_counts(empty: Goldsmith, tmp_path: Path) -> None:
    """Each error names its own: who stops three rollouts must know which of them goes on."""
    done = empty.here("control.show", "odd-one", "no-setuid", "odd-two")
    assert (done.code, "no-setuid (high)" in done.out.splitlines()) == (2, True)
    assert re.findall(r"(?m)^(\S+): unknown control: (\S+)", done.err) == [
        ("odd-one", "odd-one"), ("odd-two", "odd-two"),
    ]  # fmt: skip
    fleets = tmp_path / "content/pipelines/fleets"
    fleets.mkdir(parents=True)
    text = 'title = "t"\nowner = "o"\nkind = "docker"\nselector = { app = "shop" }\n'
    (fleets / "shop.toml").write_text(f'{text}replacement = {{ definition = "debian-base" }}\n')
    worse = refused(empty.with_(tmp_path / "content").here("roll.pause", "shop", "odd", "--reason", "r"), 3)
    assert re.findall(r"(?m)^(\S+): ", worse) == ["shop", "odd"]
