"""What another image changes in a container, and whether its user can write where the old one did."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.fleet.docker.container_spec import Ownership, image_changes, user_after, written

BEFORE = {
    "User": "", "Entrypoint": ["/app"], "Cmd": ["serve"], "Env": ["PATH=/bin", "MODE=a", "OLD=1"],
    "ExposedPorts": {"80/tcp": {}}, "Labels": {"made-by": "us"},
}  # fmt: skip
SETS = {
    "User": "65532:65532", "Entrypoint": ["nginx"], "Env": ["PATH=/bin", "MODE=b", "NEW=1"],
    "ExposedPorts": {"8080/tcp": {}}, "Healthcheck": {"Test": ["CMD", "/healthz"]}, "Volumes": {"/data": {}},
}  # fmt: skip


def container(host: dict[str, Any] | None = None, **config: Any) -> dict[str, Any]:
    """A container of BEFORE with what was given to it."""
    return {"Config": {**BEFORE, **config}, "HostConfig": host or {}}


def test_what_the_image_sets_changes_with_the_image() -> None:
    """By name, and never the value of a variable."""
    assert image_changes(container(), BEFORE, SETS) == (
        "user: root → 65532:65532", "entrypoint: /app → nginx", "command: serve → -",
        "health check: - → CMD /healthz", "variable MODE: another value", "variable NEW: new", "variable OLD: gone",
        "port 8080/tcp: new", "port 80/tcp: gone", "volume /data: new", "label made-by: gone",
    )  # fmt: skip


def test_the_same_image_changes_nothing() -> None:
    """Whatever was given to the container."""
    assert image_changes(container(User="7", Env=["SECRET=1"]), BEFORE, BEFORE) == ()


def test_what_was_given_to_the_container_stays_and_is_told_apart() -> None:
    """As the person who ran it wanted it."""
    given = container(User="1000", Env=["PATH=/bin", "MODE=mine", "OLD=1"], Cmd=["serve", "--fast"])
    told = image_changes(given, BEFORE, SETS)
    assert "user: stays as it was given to the container; the image has 65532:65532" in told
    assert "command: stays as it was given to the container; the image has -" in told
    assert "--fast" not in "".join(told), "a command may hold a password"
    assert "variable MODE: stays as it was given to the container" in told
    assert "mine" not in "".join(told)
    assert (user_after(given, BEFORE, SETS), user_after(container(), BEFORE, SETS)) == ("1000", "65532:65532")


def test_a_published_port_that_the_new_image_does_not_expose_is_told() -> None:
    """The binding stays, and would lead to nobody."""
    host = {"PortBindings": {"80/tcp": [{"HostPort": "80"}], "90/tcp": None}}
    assert image_changes(container(host), BEFORE, SETS)[-1].startswith("port 80/tcp is published, and the new image")


@pytest.mark.parametrize(
    ("user", "groups", "owner", "lets"),
    [
        ("", (), (0, 0, 0o700), True),
        ("root", (), (5, 5, 0o500), True),
        ("0:0", (), (5, 5, 0o500), True),
        ("65532:65532", (), (0, 0, 0o755), False),
        ("65532:65532", (), (0, 0, 0o757), True),
        ("65532:65532", (), (65532, 0, 0o755), True),
        ("65532:65532", (), (65532, 0, 0o577), False),
        ("65532:65532", (), (0, 65532, 0o775), True),
        ("65532:65532", (), (0, 65532, 0o757), False),
        ("65532:65532", ("7",), (0, 7, 0o775), True),
        ("65532:65532", (), (0, 7, 0o775), False),
        ("65532", (), (0, 7, 0o775), None),
        ("65532", (), (0, 7, 0o755), False),
        ("65532:65532", ("docker",), (0, 7, 0o775), None),
        ("www-data", (), (0, 0, 0o755), None),
    ],
)
def test_who_may_write(user: str, groups: tuple[str, ...], owner: tuple[int, int, int], lets: bool | None) -> None:
    """By owner, else by group, else as anybody, as the kernel decides; a name alone says nothing."""
    assert Ownership(*owner).lets(user, groups) is lets


def test_only_what_is_mounted_to_be_written_counts() -> None:
    """And not what a person has taken out."""
    mounts = [
        {"Type": "volume", "RW": True, "Destination": "/a"}, {"Type": "bind", "RW": True, "Destination": "/b"},
        {"Type": "bind", "RW": False, "Destination": "/c"}, {"Type": "tmpfs", "RW": True, "Destination": "/d"},
    ]  # fmt: skip
    assert written({"Mounts": mounts}, ()) == ["/a", "/b"]
    assert written({"Mounts": mounts}, ("/b",)) == ["/a"]
    assert written({}, ()) == []
