"""Which module of ours asks AWS for what: written down for every test, and held against what the module declares."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from typing import Any
from unittest.mock import patch

import pytest

EDGE: ContextVar[str] = ContextVar("edge", default="")
"""The module that asks right now."""
CALLED: set[tuple[str, str]] = set()
"""What was asked for in this process: module and permission."""
CLIENT, ROOMS = "images.aws.client", ("images.", "pipelines.", "tasks")


def asking() -> str:
    """The innermost module of ours on the stack, without the client itself; empty where a test asks by itself."""
    frame: Any = sys._getframe(2)
    while frame:
        name = str(frame.f_globals.get("__name__", ""))
        if name.startswith(ROOMS) and name != CLIENT:
            return name
        frame = frame.f_back
    return ""


@cache
def declared(edge: str) -> frozenset[str]:
    """The actions that a module says it asks for itself."""
    permissions = getattr(import_module(edge), "PERMISSIONS", ())
    return frozenset(action for one in permissions if not one.by for action in one.actions)


@contextmanager
def recorded() -> Iterator[None]:
    """Every call during the block is written down, and fails where its module does not declare it."""
    from images.aws.client import Client, Clients

    call, pages, assuming = Client.call, Client.pages, Clients._assuming

    def recorded_call(self: Client, operation: str, **request: Any) -> dict[str, Any]:
        edge, permission = EDGE.get() or asking(), self.permission(operation)
        if edge:
            assert permission in declared(edge), f"{edge} asks for {permission}, and its PERMISSIONS do not say so"
            CALLED.add((edge, permission))
        token = EDGE.set(edge)
        try:
            return call(self, operation, **request)
        finally:
            EDGE.reset(token)

    def recorded_pages(self: Client, operation: str, key: str, **request: Any) -> Iterator[Any]:
        edge, found = EDGE.get() or asking(), pages(self, operation, key, **request)

        def each() -> Iterator[Any]:
            while True:
                token = EDGE.set(edge)
                try:
                    one = next(found)
                except StopIteration:
                    return
                finally:
                    EDGE.reset(token)
                yield one

        return each()

    def recorded_assuming(self: Clients, *about: Any) -> Any:
        from botocore.credentials import AssumeRoleCredentialFetcher as Fetcher

        fetch = Fetcher.fetch_credentials

        def recorded_fetch(self: Any) -> Any:
            CALLED.add((CLIENT, "sts:AssumeRole"))
            return fetch(self)

        with patch.object(Fetcher, "fetch_credentials", recorded_fetch):
            return assuming(self, *about)

    with (
        patch.object(Client, "call", recorded_call),
        patch.object(Client, "pages", recorded_pages),
        patch.object(Clients, "_assuming", recorded_assuming),
    ):
        yield


def never_called(called: set[tuple[str, str]]) -> list[str]:
    """What modules declare and nothing of `called` asks for."""
    from pipelines.role_policies import EDGES

    return sorted(f"{edge}: {one}" for edge in EDGES for one in declared(edge) if (edge, one) not in called)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What a worker has seen."""
    CALLED.update(map(tuple, getattr(node, "workeroutput", {}).get("edges", ())))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """After the whole suite, fail where something is declared that nothing asked for."""
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["edges"] = sorted(CALLED)
        return
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not any(
        config.getoption(name, default=None) for name in ("keyword", "markexpr", "lf", "fast", "collectonly")
    )
    ended = session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}
    if whole and ended and (needless := never_called(CALLED)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print("\ndeclared, and never asked for:", *needless, sep="\n  ")  # noqa: T201
