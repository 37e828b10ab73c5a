"""Content roots that mean harm: planning and lint run nothing of theirs, stay in memory, and say what is wrong once."""

from __future__ import annotations

import os
import subprocess
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest

from hardening.catalog import load_controls, load_profile
from hardening.foundation.content import load_toml, read_small
from hardening.foundation.errors import ContentError
from hardening.foundation.settings import ROOT, Settings
from hardening.foundation.templating import MOST
from images.build import build_steps
from images.catalog import load_definitions
from images.model import Definition
from images.packages.index import write_atomically
from images.plan.upstream import LOCK, LockFile, Upstream
from images.store.oci import Store
from pipelines.lint import content_problems
from tests.hardening.test_render import banner, rendered
from tests.images.build.test_builders import GOLDEN
from tests.images.plan.test_validate import sound
from tests.support.building import definition
from tests.support.loop import CHILD
from tests.support.loop import definition as written
from tests.support.publishing import NOW

TODAY = date(2026, 6, 1)
MOST_MEMORY = 100 << 20  # bytes; a bomb takes a thousand million

# By name: a template that reaches for Python, or for what it was not given.
ESCAPES = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "classes by item": "{{ ''['__class__'] }}",
    "classes by filter": "{{ ''|attr('__class__') }}",
    "globals of a function": "{{ range.__globals__ }}",
    "globals of a macro": "{% macro m() %}{% endmacro %}{{ m.__globals__ }}",
    "globals of a cycler": "{{ cycler.__init__.__globals__.os }}",
    "a program": "{{ cycler.__init__.__globals__.os.system('touch ' ~ params.text) }}",
    "attributes by format": "{{ '{0.__class__}'.format(1) }}",
    "format by a map": "{{ ['{0.__class__}']|map('format', 1)|list }}",
    "a module of Jinja": "{{ self._TemplateReference__context }}",
    "changes of what it is given": "{{ values.append(1) }}",
}
# By name: a template that makes too much, in characters, numbers or rounds.
BOMBS = {
    "text times a number": "{{ 'a' * 10**9 }}",
    "a number times a text": "{{ 10**9 * 'a' }}",
    "a list times a number": "{{ [1] * 10**9 }}",
    "a power": "{{ 9**99999999 }}",
    "a product": "{% set ns = namespace(x=9**999) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "a range": "{% for i in range(10**9) %}{% endfor %}",
    "a long range": "{{ range(10**12)|list }}",
    "loops in loops": "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
    "loops that print": "{% for i in range(9999) %}" + "x" * 1000 + "{% endfor %}",
    "doubling by ~": "{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "doubling by +": "{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "doubling by a block": "{% set a %}aaaaaaaaaa{% endset %}"
    + "".join(f"{{% set a %}}{'{{ a }}' * 10}{{% endset %}}" for _ in range(12)),
    "doubling by a list": "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}"
    "{% endfor %}{{ ns.x }}",
    "a list of lists as text": "{{ ([([('a' * 9999)] * 999)] * 999)|string }}",
    "a list of lists as json": "{{ ([([('a' * 9999)] * 999)] * 999)|tojson }}",
    "center": "{{ 'a'.center(10**9) }}",
    "the filter center": "{{ 'a'|center(10**9) }}",
    "zfill": "{{ 'a'.zfill(10**9) }}",
    "format": "{{ '{:>1000000000}'.format(1) }}",
    "percent": "{{ '%1000000000d' % 1 }}",
    "the filter format": "{{ '%1000000000d'|format(1) }}",
    "indent": "{{ ('a\\n' * 9999)|indent(10**6) }}",
    "replace": "{{ ('a' * 99999)|replace('a', 'a' * 99999) }}",
    "the method replace": "{{ ('a' * 99999).replace('a', 'a' * 99999) }}",
    "join": "{{ range(9999)|join('a' * 9999) }}",
    "map": "{{ range(99999)|map('string')|map('replace', '1', 'a' * 9999)|join }}",
    "lipsum": "{{ lipsum(n=10**6) }}",
    "a macro that calls itself": "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "brackets": "{{ " + "(" * 9999 + "1" + ")" * 9999 + " }}",
    "its own length": "x" * (2 << 20),
}


@contextmanager
def bounded() -> Iterator[None]:
    """The block takes no more memory than MOST_MEMORY at any time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", [*ESCAPES, *BOMBS])
def test_a_template_runs_nothing_and_makes_little(name: str, tmp_path: Path) -> None:
    """Of a control and of a definition: one error of content that names the file, little memory, nothing written."""
    text = {**ESCAPES, **BOMBS}[name].replace("values.append", "params.for_whom.append")
    with bounded():
        with pytest.raises(ContentError, match=r"motd\.j2: template: "):
            rendered(banner(templates={"motd.j2": text}), params={"text": str(tmp_path / "ran")})
        (tmp_path / "page.j2").write_text(text)
        given = {"definition": definition(GOLDEN), "params": {"text": str(tmp_path / "ran")}}
        with pytest.raises(ContentError, match=r"page\.j2: "):
            build_steps.render(tmp_path / "page.j2", given)
    assert not (tmp_path / "ran").exists()


def test_what_a_template_makes_of_its_constants_counts_each_time_that_it_is_rendered() -> None:
    """Though it is compiled once, and Jinja works that out while it compiles."""
    text = "{{ '" + "x" * (MOST * 3 // 5) + "' | upper }}"
    for _ in range(2):
        with pytest.raises(ContentError, match="makes more than"):
            rendered(banner(templates={"motd.j2": text}))


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("{% for x in params['for-whom'] + ['c'] %}{{ loop.index }}{{ x | upper }} {% endfor %}", "1A 2B 3C "),
        ("{{ 'a/b'.split('/')[1] }}{{ params.lines * 3 }}{{ '-' * 3 }}{{ 7 % 4 }}", "b3---3"),
        ("{{ params | tojson }}", '{"for-whom": ["a", "b"], "lines": 1, "loud": false, "text": "t", "tone": "kind"}'),
        ("{{ params['for-whom'] | map('upper') | join(',') }}{{ params.text | replace('t', 'uu') }}", "A,Buu"),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(1) }}{% set y %}{{ m(2) }}{% endset %}{{ y }}", "<1><2>"),
        ("{% for k, v in params.items() if k == 'text' %}{{ k ~ '=' ~ v }}{% else %}none{% endfor %}", "text=t"),
        ("{{ 'x\\ny' | indent(2) }}{{ params.none | default('d') }}", "x\n  yd"),
    ],
)
def test_a_template_may_do_what_configuration_needs(text: str, made: str) -> None:
    """Read, join, go through lists, and the common filters."""
    over = {"for-whom": ["a", "b"], "text": "t"}
    [file] = rendered(banner(templates={"motd.j2": text}), params=over).files
    assert file.content == made


def test_a_template_reads_a_definition_but_calls_nothing_of_it(tmp_path: Path) -> None:
    """Its data is text; its methods belong to us."""
    page = tmp_path / "page.j2"
    page.write_text(
        "{{ definition.name }} {{ definition.base.golden }} {{ definition.kind.value }} {{ definition.kind }}"
    )
    assert build_steps.render(page, {"definition": definition(GOLDEN)}) == "example parent container container"
    for wrong in ("{{ definition.model_dump() }}", "{{ definition.model_construct }}", "{{ definition.__class__ }}"):
        page.write_text(wrong)
        with pytest.raises(ContentError, match="unsafe"):
            build_steps.render(page, {"definition": definition(GOLDEN)})


def test_lint_runs_no_script_of_a_content_root(tmp_path: Path) -> None:
    """Checks, apply scripts, plants of proofs and functions are read; only a build runs them."""
    folder = tmp_path / "hardening/controls/evil"
    folder.mkdir(parents=True)
    example = ROOT / "hardening/controls/no-setuid"
    for part in ("control.toml", "cases.toml"):
        (folder / part).write_text((example / part).read_text())
    for part in ("check.sh", "apply.sh"):
        (folder / part).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        (folder / part).chmod(0o755)
    written(tmp_path, "s-one", CHILD, "RUN touch /ran")
    content_problems((ROOT, tmp_path), TODAY)
    assert not (tmp_path / "ran").exists()


def control_with(root: Path, link: str, target: Path) -> None:
    folder = root / "hardening/controls/thief"
    (folder / link).parent.mkdir(parents=True)
    (folder / "control.toml").write_text('title = "x"\n') if link != "control.toml" else None
    (folder / link).symlink_to(target)


@pytest.mark.parametrize("link", ["control.toml", "check.sh", "apply.sh", "cases.toml", "files/page.j2"])
def test_a_control_takes_no_file_of_this_host(link: str, tmp_path: Path) -> None:
    """Through a link its text would reach an image: a private key of root, for one."""
    (tmp_path / "secret").write_text("PRIVATE KEY")
    control_with(tmp_path / "root", link, tmp_path / "secret")
    with pytest.raises(ContentError, match="a link out of") as error:
        load_controls((tmp_path / "root",))
    assert "PRIVATE KEY" not in str(error.value)


@pytest.mark.parametrize(
    ("place", "load"),
    [
        ("hardening/profiles/p.toml", lambda root: load_profile((root,), "p")),
        ("hardening/controls/c", lambda root: load_controls((root,))),
        ("images/definitions/d", lambda root: load_definitions((root,))),
        ("images/definitions/d/image.toml", lambda root: load_definitions((root,))),
    ],
)
def test_no_link_leads_out_of_a_content_root(place: str, load: object, tmp_path: Path) -> None:
    """Whatever the link stands for: a file, a folder, or a whole definition."""
    (tmp_path / "outside").mkdir() if not place.endswith(".toml") else (tmp_path / "outside").write_text("x = 1")
    (tmp_path / "root" / place).parent.mkdir(parents=True)
    (tmp_path / "root" / place).symlink_to(tmp_path / "outside")
    with pytest.raises(ContentError, match="a link out of"):
        load(tmp_path / "root")  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = " + "[" * 50_000, "nested too deeply"),
        ("x = " + "{a = " * 50_000, "nested too deeply"),
        ("#" * (2 << 20), "exceeds the limit content"),
        ("x = \x00", "not TOML"),
        ("base.golden = 'y'\n[base]\nimage = 'z:1'", "each key and each .table. stands only once"),
    ],
)
def test_a_file_that_no_person_wrote_is_one_error(text: str, said: str, tmp_path: Path) -> None:
    """Depth and length end before memory does."""
    (tmp_path / "image.toml").write_text(text)
    with bounded(), pytest.raises(ContentError, match=said):
        load_toml(tmp_path / "image.toml", Definition, name="x")


def test_nothing_is_hidden_in_a_line_of_content(tmp_path: Path) -> None:
    """Reviews, TOML and the shell take a carriage return within a line for a part of it, here of a comment."""
    (tmp_path / "check.sh").write_bytes(b"# fine\recho hidden\necho seen\r\n")
    said = subprocess.run(["sh", str(tmp_path / "check.sh")], check=True, capture_output=True, text=True).stdout
    assert said.split() == ["seen"]
    with pytest.raises(ContentError, match="a carriage return in the middle of line 1"):
        read_small(tmp_path / "check.sh")
    (tmp_path / "check.sh").write_bytes(b"echo seen\r\n")
    assert read_small(tmp_path / "check.sh") == "echo seen\n"


def test_giant_files_and_what_never_ends_are_refused(tmp_path: Path) -> None:
    """A sparse file costs its author nothing; a pipe has no end."""
    root = written(tmp_path, "s-one", CHILD.replace("[base]", 'files = [{ source = "big", path = "/x" }]\n[base]'))
    folder = root / "images/definitions/s-one"
    with (folder / "big").open("wb") as file:
        file.truncate(1 << 40)
    with bounded(), pytest.raises(ContentError, match=r"the limit content\.file"):
        sound(root)
    (folder / "big").unlink()
    os.mkfifo(folder / "big")
    with pytest.raises(ContentError, match=r"is not a file in|neither a file nor a link"):
        sound(root)
    (folder / "image.toml").unlink()
    os.mkfifo(folder / "image.toml")
    with pytest.raises(ContentError, match="neither a file"):
        load_definitions((root,))


def test_a_large_file_is_copied_without_reading_it_whole(tmp_path: Path) -> None:
    """Memory does not grow with what a definition carries."""
    with (tmp_path / "big").open("wb") as file:
        file.truncate(MOST_MEMORY + (1 << 20))
    with bounded():
        build_steps.put_file(definition(GOLDEN), tmp_path, "big", tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_size > MOST_MEMORY


@pytest.mark.parametrize(
    "text",
    [
        '[base]\nimage = "r.example.com/a:1\\n[images]"',
        '[base]\nimage = "r.example.com/a\\"b:1"',
        '[base]\nimage = "--config=/x"',
        '[base]\nimage = "../../etc:1"',
        '[base]\ngolden = "../x"',
        'labels = { a = "x\\ny" }\n[base]\ngolden = "parent"',
        'labels = { "a\\nb" = "x" }\n[base]\ngolden = "parent"',
        'environment = { "A\\nB" = "x" }\n[base]\ngolden = "parent"',
        'environment = { A = "x\\ny" }\n[base]\ngolden = "parent"',
        'packages = ["../x"]\n[base]\ngolden = "parent"',
        'files = [{ source = "x", path = "/../etc/passwd" }]\n[base]\ngolden = "parent"',
        'tmpfs = ["/x\\ny"]\n[base]\ngolden = "parent"',
        'tmpfs = ["//usr/local/lib/python3.13/dist-packages"]\n[base]\ngolden = "parent"',
        'tmpfs = ["/etc/./"]\n[base]\ngolden = "parent"',
    ],
)
def test_what_becomes_a_path_or_a_line_is_checked(text: str) -> None:
    """Before it reaches a file, a Dockerfile or an address."""
    with pytest.raises(ContentError):
        definition(text)


def test_the_lock_file_is_no_link_out_of_its_root(tmp_path: Path) -> None:
    """Neither when it is read nor, by whatever name it is first written, when a tag is pinned."""
    (tmp_path / "root" / LOCK).parent.mkdir(parents=True)
    (tmp_path / "outside").write_text("")
    (tmp_path / "root" / LOCK).symlink_to(tmp_path / "outside")
    upstream = Upstream(
        Settings(state=tmp_path / "state", content=(tmp_path / "root",)), Store(tmp_path / "store"), NOW
    )
    with pytest.raises(ContentError, match="a link out of"):
        upstream.locked("r.example.com/a:1")
    write_atomically(tmp_path / "root" / LOCK, "# pins\n")
    assert (tmp_path / "outside").read_text() == ""


def test_a_pin_that_is_no_digest_is_refused(tmp_path: Path) -> None:
    """The lock file is content too."""
    lock = tmp_path / "images.lock.toml"
    lock.write_text('[images."a:1"]\ndigest = "sha256:../../../x"\nplatforms = {}\n')
    with pytest.raises(ContentError, match="must be a digest"):
        load_toml(lock, LockFile)
