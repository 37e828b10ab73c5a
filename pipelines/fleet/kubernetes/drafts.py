"""The draft of a Kubernetes fleet's file, from an object that keeps pods already. Pure.

Each choice has a comment that says from what it was derived.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from images.model import Definition
from pipelines.fleet.delegated_drafts import becomes_of, limit_as, set_container
from pipelines.fleet.drafting import Draft, lacking
from pipelines.fleet.kubernetes.workloads import Workload, obstacle, reach_of
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
    work = found.work
    becomes, because = becomes_of(work.name, found.image, found.golden, found.called, replacement, known)
    definition, draft = known.get(becomes), Draft()
    draft.begin_fleet(found.source, work.name, "kubernetes", owner)
    draft.set("selector", found.selector, "What its own controller tells its pods by.")
    draft.set_replacement(becomes, because, definition, lacks=lacking(becomes, definition))
    _set_place(draft, found)
    limit_as(draft, work.called, f"{work.desired} pods", reach_of(work), "lower maxUnavailable")
    if why := obstacle(Workload(work.kind, work.shown, found.container)):
        draft.todo.append(f"{work.called} will be left alone: {why}")
    return draft, becomes


def _set_place(draft: Draft, found: UnadoptedWorkload) -> None:
    draft.table("kubernetes")
    draft.set("kubeconfig", found.place.kubeconfig)
    draft.set("context", found.place.context)
    draft.set("namespace", found.place.namespace)
    others = [name for name in found.work.containers if name != found.container]
    set_container(draft, found.container, others, "pods")
