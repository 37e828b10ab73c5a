"""The names of Goldsmith's own rules, beside controls, findings and benchmarks, and which of them a waiver may name."""

from __future__ import annotations

from hardening.benchmark import SCORE
from hardening.policy import RunningRules

BOOT_TITLES = {
    "boot-completed": "The machine boots to its default target",
    "boot-failed-units": "No unit has failed after the boot",
    "boot-listening": "Nothing listens but what the definition names",
    "boot-cloud-init": "cloud-init ends without an error",
    "boot-second": "A second boot is as good, and what makes a machine itself is made once for each",
}
RUNNING = tuple(rule.replace("_", "-") for rule in RunningRules.model_fields)
# Whatever is not listed cannot be waived: that something was evaluated at all, what a policy must hold, a revocation.
WAIVABLE = (*(rule for rule in RUNNING if rule != "revoked"), SCORE, *BOOT_TITLES)
