"""GitHub's deployments, on loopback: three requests, held to the schemas that GitHub publishes.

From the OpenAPI description of its REST API, version 2022-11-28: `repos/create-deployment`, `repos/list-deployments`,
`repos/create-deployment-status`. What a schema does not know is refused here, as GitHub would ignore it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jsonschema import Draft202012Validator

from tests.support.hostile import Asked, Hostile, Reply, hostile

TEXT, FLAG = {"type": "string"}, {"type": "boolean"}
DEPLOYMENT = {
    "type": "object",
    "properties": {
        "ref": TEXT, "task": TEXT, "auto_merge": FLAG, "required_contexts": {"type": "array", "items": TEXT},
        "payload": {"oneOf": [{"type": "object"}, TEXT]}, "environment": TEXT,
        "description": {"type": ["string", "null"], "maxLength": 140}, "transient_environment": FLAG,
        "production_environment": FLAG,
    },
    "required": ["ref"],
    "additionalProperties": False,
}  # fmt: skip
STATUS = {
    "type": "object",
    "properties": {
        "state": {
            "enum": ["error", "failure", "inactive", "in_progress", "queued", "pending", "success"],
        },
        "target_url": TEXT, "log_url": TEXT, "description": {"type": "string", "maxLength": 140}, "environment": TEXT,
        "environment_url": TEXT, "auto_inactive": FLAG,
    },
    "required": ["state"],
    "additionalProperties": False,
}  # fmt: skip
LIST = {"sha", "ref", "task", "environment", "per_page", "page"}
PREFIX, TOKEN, REPOSITORY = "/api/v3", "github_pat_s3cr3t", "shop/web"

CHECKS: tuple[tuple[str, str, int, str], ...] = (
    ("user-agent", "goldsmith", 403, "Request forbidden by administrative rules."),
    ("authorization", f"Bearer {TOKEN}", 401, "Bad credentials"),
    ("x-github-api-version", "2022-11-28", 400, "API version is not valid"),
    ("accept", "application/vnd.github+json", 415, "Unsupported 'Accept' header"),
)
"""What each request must carry, and what is answered where it does not."""


@dataclass
class Forge:
    """One repository. `before` and `after` are called with a request before it is done, and before it is answered; what
    they return is answered instead.
    """

    server: Hostile
    refs: tuple[str, ...] = ("main",)
    deployments: list[dict[str, Any]] = field(default_factory=list)
    statuses: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    before: Callable[[Asked], Reply | None] = lambda _asked: None
    after: Callable[[Asked], Reply | None] = lambda _asked: None

    @property
    def settings(self) -> dict[str, Any]:
        """[github], but for the file with the token."""
        return {"repository": REPOSITORY, "api": f"{self.server.address}{PREFIX}", "ca_file": self.server.ca}

    def states(self, rollout: str) -> list[str]:
        """The states that the deployments of a rollout were given, one after the other; all in one list."""
        mine = [one["id"] for one in self.deployments if one["payload"]["rollout"] == rollout]
        return [status["state"] for number in mine for status in self.statuses[number]]

    def answer(self, asked: Asked) -> Reply:
        """Answer as GitHub does."""
        if early := self.before(asked):
            return early
        made = self._answer(asked)
        return self.after(asked) or made

    def _answer(self, asked: Asked) -> Reply:
        headers = {name.lower(): value for name, value in asked.headers.items()}
        if wrong := next((one for one in CHECKS if headers.get(one[0]) != one[1]), None):
            return problem(*wrong[2:])
        parts = urlsplit(asked.path)
        base = f"{PREFIX}/repos/{REPOSITORY}/deployments"
        rest = parts.path.removeprefix(base).strip("/").split("/")
        if asked.method == "GET" and parts.path == base:
            return self._list(parse_qs(parts.query))
        if asked.method != "POST" or not parts.path.startswith(base) or rest[1:] not in ([], ["statuses"]):
            return problem(404, "Not Found")
        if headers.get("content-type") != "application/json":
            return problem(400, "Problems parsing JSON")
        body = json.loads(asked.body)
        return self._add_status(int(rest[0]), body) if rest[1:] else self._create(body)

    def _list(self, query: dict[str, list[str]]) -> Reply:
        if set(query) - LIST or not 1 <= int(query.get("per_page", ["30"])[0]) <= 100:
            return problem(422, "Validation Failed")
        same = {name: query[name][0] for name in ("ref", "task", "environment") if name in query}
        found = [one for one in reversed(self.deployments) if all(one[name] == same[name] for name in same)]
        return reply(200, found[: int(query.get("per_page", ["30"])[0])])

    def _create(self, body: Any) -> Reply:
        if errors := [error.message for error in Draft202012Validator(DEPLOYMENT).iter_errors(body)]:
            return problem(422, f"Invalid request.\n\n{errors[0]}")
        if body["ref"] not in self.refs:
            return problem(422, f"No ref found for: {body['ref']}")
        number = 1_000_000_000_000 + len(self.deployments)
        made = {
            "id": number, "node_id": "DE_1", "sha": "a" * 40, "task": "deploy", "environment": "production",
            "payload": {}, "description": None, "statuses_url": "", "repository_url": "", "url": "", **body,
        }  # fmt: skip
        self.deployments.append(made)
        self.statuses[number] = []
        return reply(201, made)

    def _add_status(self, number: int, body: Any) -> Reply:
        if errors := [error.message for error in Draft202012Validator(STATUS).iter_errors(body)]:
            return problem(422, f"Invalid request.\n\n{errors[0]}")
        if number not in self.statuses:
            return problem(404, "Not Found")
        self.statuses[number].append(body)
        return reply(201, {"id": len(self.statuses[number]), **body})


def reply(status: int, value: Any) -> Reply:
    return Reply(json.dumps(value).encode(), status, {"Content-Type": "application/json; charset=utf-8"})


def problem(status: int, message: str) -> Reply:
    return reply(status, {"message": message, "documentation_url": "https://docs.github.com/rest"})


@contextmanager
def forge(certificates: Path) -> Iterator[Forge]:
    """A repository's deployments over TLS, by an authority of its own."""
    with hostile(certificates) as server:
        made = Forge(server)
        server.fallback = made.answer
        yield made
