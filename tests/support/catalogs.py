"""A catalog of one's own on signed archives of one's own, where what was planned counts as built: nothing is built."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from hardening.foundation.settings import ROOT, Packages, Settings
from images.artifact import Artifact
from images.context import Context
from images.packages import debian
from images.plan.planner import Planner
from tests.support.archive import Archive
from tests.support.scanning import NO_FEEDS, OS_RELEASE

CONTROL = "no-setuid"
NOW = datetime.fromisoformat("2026-11-25T12:00:00+00:00")


class Catalog:
    """Definitions in a content root, an archive that stands for the distribution, and one outside of it."""

    def __init__(self, folder: Path, archive: Archive, extra: Archive | None = None, **settings: Any) -> None:
        self.folder, self.root, self.archive = folder, folder / "root", archive
        (self.root / "hardening/profiles").mkdir(parents=True)
        for name in ("bare", "container-base", "container-static", "machine-base"):
            (self.root / f"hardening/profiles/{name}.toml").write_text(
                f'title = "Little"\nowner = "tests"\ncontrols = [{{ control = "{CONTROL}" }}]\n'
            )
        shutil.copytree(ROOT / "hardening/controls" / CONTROL, self.root / "hardening/controls" / CONTROL)
        shutil.copytree(ROOT / "hardening/policies", self.root / "hardening/policies")
        self.data = folder / "data"
        self.data.mkdir()
        self.tell({}, ())
        packages = Packages(
            mirror=archive.uri, suites=("./",), keyring=archive.keyring,
            extra_sources=(extra.sources(),) if extra else (),
        )  # fmt: skip
        feeds = NO_FEEDS | {"tracker": str(self.data), "kev": str(self.data / "kev.json")}
        given = {"retry_for": timedelta(0), "packages": packages, "feeds": feeds, "kinds": ("container",), **settings}
        self.settings = Settings(state=folder / "state", **given).over((self.root,))

    def tell(self, tracker: Mapping[str, Any], exploited: Iterable[str]) -> None:
        """Let the feeds say this."""
        known = {"curl": {"CVE-2000-0001": entry("9.9")}, "linux": MANY, "openssl": MANY}
        (self.data / "tracker.json").write_text(json.dumps({**known, **tracker}))
        (self.data / "metadata.json").write_text('{"date": "2026-11-25"}')
        (self.data / "kev.json").write_text(
            json.dumps([{"cveID": one} for one in ("CVE-2014-0160", *MANY, *exploited)])
        )

    def define(self, name: str, base: str, packages: Iterable[str] = (), more: str = "") -> Path:
        """A definition; `base` is TOML, or the name of a parent."""
        folder = self.root / "images/definitions" / name
        folder.mkdir(parents=True, exist_ok=True)
        on = base if "=" in base else f'golden = "{base}"'
        (folder / "image.toml").write_text(
            f'title = "{name}"\nowner = "tests"\nkind = "container"\nprofile = "bare"\n'
            f"packages = {json.dumps(list(packages))}\nbase = {{ {on} }}\n{more}"
        )
        return folder

    def context(self, now: datetime = NOW) -> Context:
        """What flows work with at a moment."""
        return Context(self.settings, now, str, str)

    def settle(self, now: datetime = NOW, added: Mapping[str, str] = {}) -> None:
        """Let everything that is planned be built; `added` are stanzas of what Dockerfiles add, by image."""
        context = self.context(now)
        planner, inside = Planner(context), dict[str, str]()
        for name in context.parents:
            planner.plan_all([name])
        for name in planner.plans:
            plan = planner.plans[name]
            golden = context.definitions[name].definition.base.golden
            own = [debian.as_installed(one) for one in debian.stanzas(context.index.stanzas(plan.added))]
            inside[name] = "\n\n".join(one for one in (inside.get(golden or "", ""), *own, added.get(name, "")) if one)
            digest = image_of(context, name, inside[name])
            planner.digests[name] = digest
        again = Planner(context)
        again.digests.update(planner.digests)
        for name in planner.plans:
            plan = again.plan(name)
            context.ledger.record_artifact(
                Artifact(
                    name, plan.platform, plan.input_digest, planner.digests[name], plan.inputs, plan.packages, now, now
                )
            )


def image_of(context: Context, name: str, status: str) -> str:
    """An image in the store that holds this dpkg status, and its name, as no image has its parent's content; its
    content digest.
    """
    files = {"usr/lib/os-release": OS_RELEASE, "usr/share/name": name, "var/lib/dpkg/status": status}
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for path, text in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    layer = context.store.put_bytes(
        gzip.compress(plain.getvalue(), mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip"
    )
    diff_id = f"sha256:{hashlib.sha256(plain.getvalue()).hexdigest()}"
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    return context.store.write_image(config, [layer]).digest


def entry(fixed: str = "", urgency: str = "medium") -> dict[str, Any]:
    """What the tracker says of trixie."""
    said = {"status": "resolved", "fixed_version": fixed} if fixed else {"status": "open"}
    return {"description": "A hole", "releases": {"trixie": {"repositories": {}, "urgency": urgency, **said}}}


MANY = {f"CVE-2000-{number}": entry("0.1") for number in range(1000, 1020)}
"""Old ones, fixed before any package here: what is said besides makes the data neither half as long nor twice."""
