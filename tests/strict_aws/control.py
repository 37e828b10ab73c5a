"""What tests steer the emulator by: JSON over HTTP beside AWS's own requests."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.strict_aws.blocks import BLOCK, PER_GIB
from tests.strict_aws.wire import Answer

if TYPE_CHECKING:
    from tests.strict_aws.front import Front

PREFIX = "/_strict/"


def handle(front: Front, request: Any) -> Answer:
    """The answer to a request below `/_strict/`."""
    name, _, rest = request.path.removeprefix(PREFIX).partition("/")
    action = ACTIONS.get(name)
    if action is None:
        return said({"unknown": name, "known": sorted(ACTIONS)}, 404)
    given = json.loads(request.get_data() or b"{}")
    with front.world.lock:
        answer = action(front, given, rest)
    return answer if isinstance(answer, Answer) else said(answer)


def said(value: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(value, default=str).encode(), [("Content-Type", "application/json")])


def health(front: Front, given: dict[str, Any], rest: str) -> Any:
    return {"ok": True}


def reset(front: Front, given: dict[str, Any], rest: str) -> Any:
    """Forget everything, moto's part too."""
    front.reset()
    return {}


def faults(front: Front, given: dict[str, Any], rest: str) -> Any:
    """Put these rules in the place of all others."""
    front.world.faults.replace(given.get("rules", []), str(given.get("seed", 0)))
    return {}


def calls(front: Front, given: dict[str, Any], rest: str) -> Any:
    return front.world.journal.since(int(rest or 0))


def waits(front: Front, given: dict[str, Any], rest: str) -> Any:
    """How long things stay pending; `held` keeps them so, false lets go."""
    front.world.waits.seconds = given.get("seconds", front.world.waits.seconds)
    if given.get("held") is True:
        front.world.waits.held = True
    if given.get("held") is False:
        front.world.release()
    return {}


def advance(front: Front, given: dict[str, Any], rest: str) -> Any:
    """Move the clock on."""
    front.world.clock.advance(given["seconds"])
    return {"now": front.world.now()}


def freeze(front: Front, given: dict[str, Any], rest: str) -> Any:
    """From now on the clock moves only when it is moved."""
    front.world.clock.freeze()
    return {}


def organization(front: Front, given: dict[str, Any], rest: str) -> Any:
    """Which ARNs (organisation and units, separated by blanks) an account belongs to."""
    front.world.organizations.update(given)
    return {}


def members(front: Front, given: dict[str, Any], rest: str) -> Any:
    """The accounts of the organisation by their states, and which of them may list these."""
    front.world.members.update(given["states"])
    front.world.managing.update(given["managing"])
    return {}


def external_ids(front: Front, given: dict[str, Any], rest: str) -> Any:
    """What whoever assumes a role must say, by the role's ARN."""
    front.world.external_ids.update(given)
    return {}


def policies(front: Front, given: dict[str, Any], rest: str) -> Any:
    """What we may do from now on, by account; without any account: everything."""
    front.world.policies = given or None
    return {}


def asked(front: Front, given: dict[str, Any], rest: str) -> Any:
    return front.world.asked


def limits(front: Front, given: dict[str, Any], rest: str) -> Any:
    front.world.copies_at_once = given.get("copies_at_once", front.world.copies_at_once)
    front.world.page_at_most = given.get("page_at_most", front.world.page_at_most)
    return {}


def fail(front: Front, given: dict[str, Any], rest: str) -> Any:
    """Let an image or a snapshot end in failure, as copies do when their key cannot be used."""
    name, world = given["id"], front.world
    if name in world.images:
        world.images[name].failed = True
    else:
        world.snapshots[name].failed = "Given key ID is not accessible"
    return {}


def takes(front: Front, given: dict[str, Any], rest: str) -> Any:
    """How many seconds things take from now on."""
    if unknown := given.keys() - front.world.takes.keys():
        return said({"unknown": sorted(unknown), "known": sorted(front.world.takes)}, 404)
    front.world.takes.update(given)
    return {}


def ail(front: Front, given: dict[str, Any], rest: str) -> Any:
    """Let something go wrong with instances of this id or image."""
    front.world.ailments.add(given["id"], given["kinds"], given["after"])
    return {}


def digests(front: Front, given: dict[str, Any], rest: str) -> Any:
    """What tags name from now on, by reference."""
    front.world.digests.update(given)
    return {}


def cure(front: Front, given: dict[str, Any], rest: str) -> Any:
    front.world.ailments.drop(given["id"])
    return {}


def snapshots(front: Front, given: dict[str, Any], rest: str) -> Any:
    """All snapshots of all accounts and regions: what they are and what lies in them, by digest."""
    world = front.world
    return {
        one.id: {
            "account": one.owner,
            "region": one.region,
            "state": world.state_of(one),
            "size_gib": one.size_gib,
            "key": one.key,
            "parent": one.parent,
            "written": sorted(one.written),
            "users": sorted(one.users),
            "blocks": {index: digest.hex() for index, digest in one.blocks().items()},
        }
        for one in world.snapshots.values()
    }


def images(front: Front, given: dict[str, Any], rest: str) -> Any:
    """All images of all accounts and regions."""
    world = front.world
    return {
        one.id: {
            "account": one.owner,
            "region": one.region,
            "name": one.name,
            "state": world.state_of_image(one),
            "snapshots": one.snapshots(),
            "permissions": one.permissions,
            "deprecate_at": one.deprecate_at,
        }
        for one in world.images.values()
    }


def disk(front: Front, given: dict[str, Any], rest: str) -> Any:
    """Blocks of a snapshot (`ID/FIRST/COUNT`) as a volume made from it would read: what nobody wrote is zeros, or
    noise where the snapshot is encrypted.
    """
    name, first, count = rest.split("/")
    snapshot = front.world.snapshots[name]
    wanted = range(int(first), int(first) + int(count))
    if wanted.start < 0 or wanted.stop > snapshot.size_gib * PER_GIB:
        return said({"beyond": snapshot.size_gib}, 416)
    content = b"".join(read(front, snapshot, index) for index in wanted)
    return Answer(200, content, [("Content-Type", "application/octet-stream")])


def read(front: Front, snapshot: Any, index: int) -> bytes:
    import random

    digest = snapshot.block(index)
    if digest is not None:
        return front.world.blocks.get(digest)
    return random.Random(f"{snapshot.id}/{index}").randbytes(BLOCK) if snapshot.key else bytes(BLOCK)


ACTIONS: dict[str, Callable[[Front, dict[str, Any], str], Any]] = {
    "health": health,
    "reset": reset,
    "faults": faults,
    "calls": calls,
    "waits": waits,
    "advance": advance,
    "freeze": freeze,
    "organization": organization,
    "external_ids": external_ids,
    "members": members,
    "policies": policies,
    "asked": asked,
    "limits": limits,
    "fail": fail,
    "takes": takes,
    "ail": ail,
    "cure": cure,
    "snapshots": snapshots,
    "images": images,
    "digests": digests,
    "disk": disk,
}
