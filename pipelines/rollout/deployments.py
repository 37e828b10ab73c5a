"""Edge: one deployment record at GitHub for each rollout, with its statuses. A record that fails stops no rollout.

What a record should say is read from the ledger each time, so that whatever was missed is made up for by the next
event of the fleet. A record is found by the id in the ledger, else by the rollout's name in its payload, before another
one is made: a process that dies in between leaves one record.
https://docs.github.com/en/rest/deployments (API version 2022-11-28).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import requests

from hardening.foundation.asking import ask_within
from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError, OutsideError, RefusedError
from hardening.foundation.limits import FORGE_BYTES, FORGE_SECONDS, parse_json
from hardening.foundation.retrying import retrying
from hardening.foundation.settings import Settings, rehearsing
from hardening.foundation.telling import Github
from hardening.foundation.text import one_line
from images.documents import from_json
from images.ledger import Deployment, Ledger, Rollout
from pipelines.fleet.members import BACK
from pipelines.rollout.notify import Message, read_secret
from pipelines.rollout.state import MemberState, Order, Phase, RolloutStage, RolloutState

VERSION = "2022-11-28"
TASK = "goldsmith"
CONNECT_SECONDS, READ_SECONDS = 5, 10
WITHIN = timedelta(seconds=20)
MOST_DESCRIPTION = 140  # characters of a description that GitHub takes
PAGE = 100
CREATED, OK = 201, 200
BUSY = (429, 500, 502, 503, 504)
IN_PROGRESS, SUCCESS, FAILURE, INACTIVE = "in_progress", "success", "failure", "inactive"
FINAL = (FAILURE, INACTIVE)


@dataclass(frozen=True)
class Wanted:
    """What the record of a rollout should say now."""

    state: str
    description: str


def recording(settings: Settings, ledger: Ledger, tell: Callable[[Message], bool]) -> Callable[[Message], bool]:
    """`tell`; after it, where the settings name a repository, the records of the message's fleet are made true."""

    def told(message: Message) -> bool:
        took = tell(message)
        if message.rollout:
            record(settings, ledger, message.fleet, message.rollout, message.at)
        return took

    return told


def record(settings: Settings, ledger: Ledger, fleet: str, rollout: str, now: datetime) -> None:
    """Make the record of a rollout true, and those of the fleet's earlier ones that are not at their end.

    What cannot be done is said here, and stops nothing. A rehearsal leaves no record.
    """
    github = settings.github
    if not github.repository or rehearsing(settings):
        return
    try:
        retrying(lambda: _record(github, ledger, fleet, rollout, now), within=WITHIN)
    except Exception as error:  # whatever it is: no rollout depends on it
        why = error.message if isinstance(error, GoldsmithError) else type(error).__name__
        say(f"no deployment record of {rollout} in {github.repository}: {why}")


def _record(github: Github, ledger: Ledger, fleet: str, rollout: str, now: datetime) -> None:
    known = ledger.deployments(fleet, github.repository)
    ids = dict.fromkeys([*(name for name, one in known.items() if one.state not in FINAL), rollout])
    rows = sorted(filter(None, map(ledger.rollout, ids)), key=lambda row: row.begun_at)
    wanted = {row.id: _state(ledger, row) for row in rows}
    successes = [name for name, one in wanted.items() if one.state == SUCCESS]
    for name in successes[:-1]:
        wanted[name] = Wanted(INACTIVE, f"{successes[-1]} took its place")
    for row in rows:
        one = known.get(row.id)
        if one and one.state in (wanted[row.id].state, *FINAL):
            continue
        forge = _Forge(github)
        if one is None:
            one = Deployment(row.id, fleet, github.repository, forge.deployment(row), "", now)
            ledger.record_deployment(one)
        forge.add_status(one.id, fleet, wanted[row.id])
        ledger.record_deployment(replace(one, state=wanted[row.id].state, at=now))


def _state(ledger: Ledger, row: Rollout) -> Wanted:
    """What a rollout has come to, by the ledger: going back is a success where it was wanted."""
    state = from_json(RolloutState, row.state) if row.state else None
    if state is None or state.stage is not RolloutStage.ENDED:
        return Wanted(IN_PROGRESS, f"to {state.target}" if state else "it begins")
    if state.failure:
        return Wanted(FAILURE, state.failure)
    members = [from_json(MemberState, one) for one in ledger.rollout_members(row.id).values()]
    back = row.id.endswith(BACK)
    if not back and not any(one.phase is Phase.NEW for one in members):
        return Wanted(INACTIVE, f"no member runs it: {state.note}")
    if not back and (later := ledger.rollout(f"{row.id}{BACK}")) and _state(ledger, later).state == SUCCESS:
        return Wanted(INACTIVE, f"{later.id} took it back")
    return Wanted(SUCCESS, state.note)


class _Bearer(requests.auth.AuthBase):
    """The token, so that no netrc of this machine is read in its place."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _Forge:
    """The deployments of one repository: three requests. Redirects are not followed: the token is for this host."""

    def __init__(self, github: Github) -> None:
        if github.token_file is None:
            raise RefusedError("github.token_file is not set")
        token = read_secret(github.token_file, "github.token_file")
        if not token.isascii() or not token.isprintable() or not token or " " in token:
            raise OutsideError("github.token_file does not hold a token", hint="one line, without anything else")
        self._github, self._auth = github, _Bearer(token)
        self._base = f"/repos/{github.repository}/deployments"

    def deployment(self, row: Rollout) -> int:
        """The id of the rollout's deployment: the one that is there, else a new one."""
        if found := self._find(row):
            return found
        order = Order.read(row.order)
        body = {
            "ref": self._github.ref, "task": TASK, "environment": row.fleet, "auto_merge": False,
            "required_contexts": [], "description": _shortly(f"{row.id}: to {order.plan.targets[0].reference}"),
            "payload": {"rollout": row.id, "target": order.plan.targets[0].reference, "members": len(order.plan.names)},
        }  # fmt: skip
        return _id_of(self._ask("POST", self._base, CREATED, body))

    def _find(self, row: Rollout) -> int | None:
        asked = urlencode({"environment": row.fleet, "task": TASK, "per_page": PAGE})
        found = self._ask("GET", f"{self._base}?{asked}", OK)
        if not isinstance(found, list):
            raise OutsideError("GitHub's answer is not a list of deployments")
        ours = [one for one in found if isinstance(one, dict) and _rollout_of(one) == row.id]
        return _id_of(ours[-1]) if ours else None  # the oldest, where two were made

    def add_status(self, number: int, fleet: str, wanted: Wanted) -> None:
        """Say how the deployment is. The records of earlier rollouts get their own words, so none by itself."""
        body = {
            "state": wanted.state, "description": _shortly(wanted.description), "environment": fleet,
            "auto_inactive": False,
        }  # fmt: skip
        self._ask("POST", f"{self._base}/{number}/statuses", CREATED, body)

    def _ask(self, verb: str, path: str, good: int, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON of an answer. Raises OutsideError where it may be another one soon, RefusedError where not."""
        status, text = ask_within(lambda: self._answer(verb, path, body), timedelta(seconds=FORGE_SECONDS.most))
        what = f"{verb} {path.partition('?')[0]}"
        if status in BUSY:
            raise OutsideError(f"{what}: GitHub answers {status}")
        if status != good:
            raise RefusedError(f"{what}: GitHub answers {status}{_said(text)}; {WHY.get(status, 'why is not known')}")
        return parse_json(text, f"the answer to {what}")

    def _answer(self, verb: str, path: str, body: Mapping[str, Any] | None) -> tuple[int, bytes]:
        headers = {
            "Accept": "application/vnd.github+json", "X-GitHub-Api-Version": VERSION, "User-Agent": TASK,
            "Accept-Encoding": "identity",
        }  # fmt: skip
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = "application/json"
        verify = str(self._github.ca_file) if self._github.ca_file else True
        try:
            with requests.request(
                verb, f"{self._github.api}{path}", data=data, headers=headers, auth=self._auth, stream=True,
                timeout=(CONNECT_SECONDS, READ_SECONDS), allow_redirects=False, verify=verify,
            ) as answer:  # fmt: skip
                return answer.status_code, _bounded(answer)
        except (requests.RequestException, OSError) as error:
            raise OutsideError(f"{self._github.api} does not answer: {type(error).__name__}") from None


WHY = {
    401: "the token of github.token_file is not known there, or has ended",
    403: "the token may not write deployments, or asked too often",
    404: "is github.repository right, and may the token see it?",
    409: "github.ref cannot be deployed: is it a branch, tag or commit of the repository?",
    422: "is github.ref a branch, tag or commit of the repository?",
}


def _bounded(answer: requests.Response) -> bytes:
    """All of an answer; what is too long is refused."""
    data = bytearray()
    for chunk in answer.iter_content(16384):
        data += chunk
        FORGE_BYTES.require(len(data), "GitHub's answer")
    return bytes(data)


def _said(text: bytes) -> str:
    """The message of an error, which is a stranger's text; nothing where there is none."""
    try:
        found = parse_json(text, "an error")
    except OutsideError:
        return ""
    message = found.get("message") if isinstance(found, dict) else None
    return f": {one_line(message)[:200]}" if isinstance(message, str) else ""


def _rollout_of(one: Mapping[str, Any]) -> str:
    """The rollout that a deployment's payload names; GitHub gives it as an object, or as text."""
    payload = one.get("payload")
    if isinstance(payload, str):
        try:
            payload = parse_json(payload, "a payload")
        except OutsideError:
            return ""
    named = payload.get("rollout") if isinstance(payload, dict) else None
    return named if isinstance(named, str) else ""


def _id_of(one: Any) -> int:
    found = one.get("id") if isinstance(one, dict) else None
    if not isinstance(found, int) or isinstance(found, bool) or not 0 < found < 1 << 63:
        raise OutsideError("GitHub's answer does not give the id of a deployment")
    return found


def _shortly(text: str) -> str:
    plain = one_line(text)
    return plain if len(plain) <= MOST_DESCRIPTION else f"{plain[: MOST_DESCRIPTION - 1]}…"
