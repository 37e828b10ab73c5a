"""The draft of a Kubernetes fleet's file, from an object that keeps pods already. Pure.

Each choice has a comment that says from what it was derived.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from images.model import Definition
from pipelines.fleet.docker.drafts import fitting
from pipelines.fleet.drafting import Draft, lacking, slug
from pipelines.fleet.kubernetes.workloads import Reach, Workload, obstacle, reach_of
from pipelines.fleet.model import Kubernetes

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"  # which kubectl itself goes by


@dataclass(frozen=True)
class UnadoptedWorkload:
    """An object that keeps pods. `golden`: the definition whose release its pods run, empty where none is known here;
    `called` is the release as people call it.
    """

    work: Workload
    place: Kubernetes
    golden: str = ""
    called: str = ""

    @property
    def source(self) -> str:
        """Where it was found."""
        return f"{self.work.called} of the namespace {self.place.namespace}"

    @property
    def selector(self) -> dict[str, str]:
        """What its own controller tells its pods by; what they carry, where that is no list of labels."""
        return dict((self.work.spec.get("selector") or {}).get("matchLabels") or self.work.labels)

    @property
    def container(self) -> str:
        """The container that is meant: the only one, the one that kubectl would take, or the first."""
        annotations = (self.work.spec["template"].get("metadata") or {}).get("annotations") or {}
        named = str(annotations.get(DEFAULT_CONTAINER) or "")
        return named if named in self.work.containers else next(iter(self.work.containers), "")

    @property
    def image(self) -> str:
        """What that one is started from."""
        return self.work.containers.get(self.container, "")


def workload_fleet_draft(
    found: UnadoptedWorkload, owner: str, replacement: str, known: Mapping[str, Definition]
) -> tuple[Draft, str]:
    """The file of a fleet, and what its pods become: `replacement`, the definition that they run, or their tag."""
    work, (becomes, because) = found.work, _becomes(found, replacement, known)
    definition, draft = known.get(becomes), Draft()
    draft.begin_fleet(found.source, work.name, "kubernetes", owner)
    draft.set("selector", found.selector, "What its own controller tells its pods by.")
    draft.set_replacement(becomes, because, definition, lacks=lacking(becomes, definition))
    _set_place(draft, found)
    _limit(draft, work, reach_of(work))
    if why := obstacle(Workload(work.kind, work.shown, found.container)):
        draft.todo.append(f"{work.called} will be left alone: {why}")
    return draft, becomes


def _becomes(found: UnadoptedWorkload, replacement: str, known: Mapping[str, Definition]) -> tuple[str, str]:
    if replacement:
        return replacement, "As --replacement says."
    if found.golden:
        return found.golden, f"Its pods run {found.called}."
    image = found.image
    if near := fitting(image, known):
        return near, f"It runs {image}, and {near} is the one definition that is called so."
    if "@" not in image and ":" in image.rpartition("/")[2]:
        return image, f"It runs {image}, which no definition is called after: its tag is followed."
    return slug(found.work.name), f"It runs {image}, which no definition is called after."


def _set_place(draft: Draft, found: UnadoptedWorkload) -> None:
    draft.table("kubernetes")
    draft.set("kubeconfig", found.place.kubeconfig)
    draft.set("context", found.place.context)
    draft.set("namespace", found.place.namespace)
    others = [name for name in found.work.containers if name != found.container]
    if others:
        draft.set(
            "container", found.container, f"Its pods also have {', '.join(others)}: those are judged, not rolled."
        )
        draft.todo.append(f"is {found.container} the container that becomes another? {', '.join(others)} stay")


def _limit(draft: Draft, work: Workload, reach: Reach) -> None:
    """What its own strategy does today, so that a plan is not refused for it; said, where that takes pods away."""
    draft.table("limits")
    many = f"{work.desired} pods"
    if reach.missing:
        draft.set("max_unavailable", reach.missing, f"Of its {many} its strategy lets so many be missing.")
        draft.todo.append(f"{work.called} has {reach.missing} of {many} missing while it rolls: lower maxUnavailable?")
    if reach.beside > 1:
        draft.set("max_surge", reach.beside, "So many new ones its strategy lets stand beside the old.")
    if reach.at_once > 1:
        draft.set("max_parallel", reach.at_once, "So many its strategy replaces at once.")
        draft.set("budgets", [{"nodes": reach.at_once}], "The same: the default of 10 % would allow fewer.")
    if not reach.missing and reach.at_once <= 1:
        draft.say("One new pod beside the old ones at a time: the defaults fit its strategy.")
