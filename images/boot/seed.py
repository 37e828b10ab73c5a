"""A cloud's answer for cloud-init: a small disk with the label it looks for, as NoCloud has it. Edge: writes a file."""

from __future__ import annotations

from pathlib import Path

from hardening.foundation.process import run
from images.boot.observations import INSTANCE


def seed(work: Path) -> Path:
    """The image of a seed in `work`: an instance of ours and nothing to do; made without mounting anything.

    The label `cidata` is what cloud-init's NoCloud looks for.
    """
    (work / "meta-data").write_text(f"instance-id: {INSTANCE}\nlocal-hostname: boot-gate\n")
    (work / "user-data").write_text("#cloud-config\n{}\n")
    image = work / "seed.img"
    run(["mformat", "-C", "-f", "1440", "-v", "cidata", "-i", str(image), "::"])
    run(["mcopy", "-i", str(image), str(work / "meta-data"), str(work / "user-data"), "::"])
    return image
