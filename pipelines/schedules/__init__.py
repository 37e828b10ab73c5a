"""Schedules in the format of other schedulers: cron, systemd, GitHub, GitLab, Kubernetes, EventBridge.

Each target is the templates of its folder here. What stands in them by default is the least that the run needs.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from datetime import time, timedelta
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WORKER = "worker"
STAYING = ("serve", WORKER)  # run until they are told to stop, and so have no target but a service
COMMANDS = ("nightly", "fleet.check", *STAYING)
SPREAD = timedelta(minutes=15)  # how much later than `at` a run may start, where the target can spread its runs
FILES = {
    "cron": {"crontab.j2": "{name}.crontab"},
    "systemd": {"service.j2": "{name}.service", "timer.j2": "{name}.timer"},
    "github": {"workflow.yml.j2": "{name}.yml"},
    "gitlab": {"pipeline.yml.j2": "{name}.gitlab-ci.yml"},
    "kubernetes": {"cronjob.yaml.j2": "{name}.yaml"},
    "eventbridge": {"cloudformation.yaml.j2": "{name}.cloudformation.yaml"},
}
"""Target → its templates, and what each becomes."""
TARGETS = tuple(FILES)
OF_IMAGE = ("kubernetes", "eventbridge")
"""Targets that run Goldsmith's own image; the others run a checkout on a machine that lasts."""


@dataclass(frozen=True)
class ScheduledRun:
    """What runs when: `words` are the command and its arguments, `at` the time of day in the time zone `zone`.

    A run is ended after `limit`, which is less than a day. `folder` is the checkout and `state` its state directory;
    `image` is Goldsmith's own image, for targets that run no checkout.
    """

    words: tuple[str, ...]
    at: time
    zone: str
    limit: timedelta
    folder: Path
    state: Path
    image: str = ""

    @property
    def name(self) -> str:
        """What the schedule is called: `goldsmith-nightly`, `goldsmith-fleet-check`."""
        return f"goldsmith-{self.words[0].replace('.', '-')}"

    def values(self) -> dict[str, Any]:
        """What a template may use."""
        limit, line = int(self.limit.total_seconds()), shlex.join(self.words)
        return {
            "name": self.name,
            "command": self.words[0],
            "words": self.words,
            "line": line,
            "step": json.dumps(f"./goldsmith {line}"),  # as YAML takes it, whatever ends in a colon
            "nightly": self.words[0] in ("nightly", *STAYING),
            "stays": self.words[0] in STAYING,
            "worker": self.words[0] == WORKER,
            "hour": self.at.hour,
            "minute": self.at.minute,
            "clock": f"{self.at:%H:%M}",
            "zone": self.zone,
            "quarters": sorted((self.at.minute + 15 * quarter) % 60 for quarter in range(4)),
            "limit_seconds": limit,
            "limit_minutes": -(-limit // 60),
            "spread_minutes": int(SPREAD.total_seconds()) // 60,
            "folder": str(self.folder),
            "state": str(self.state),
            "image": self.image,
        }


def rendered(target: str, run: ScheduledRun) -> dict[str, str]:
    """File name → text of each file of a target, one of TARGETS."""
    from jinja2 import FileSystemLoader

    from hardening.foundation import templating

    folder = HERE / target
    sandbox = templating.Sandbox(FileSystemLoader([folder]), trim_blocks=True)
    return {
        name.format(name=run.name): templating.render((folder / template).read_text(), run.values(), sandbox)
        for template, name in FILES[target].items()
        if run.words[0] not in STAYING or template != "timer.j2"
    }
