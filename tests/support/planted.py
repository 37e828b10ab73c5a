"""Repositories of git whose configuration names programs."""

from __future__ import annotations

from pathlib import Path

PROMISES = """
[core]
repositoryformatversion = 1
bare = false
worktree = .
[extensions]
partialClone = origin
[remote "origin"]
url = /nonexistent
promisor = true
uploadpack = "touch %s; false"
[protocol "file"]
allow = always
"""


def plant_repository(folder: Path, ran: Path) -> None:
    """A repository of ordinary files, which any commit may bring; it names a program that would fetch what it lacks."""
    for name in ("objects/info", "refs/heads"):
        (folder / name).mkdir(parents=True)
    (folder / "objects/info/kept").touch()
    (folder / "HEAD").write_text("ref: refs/heads/main\n")
    (folder / "refs/heads/main").write_text("1" * 40 + "\n")
    (folder / "config").write_text(PROMISES % ran)
