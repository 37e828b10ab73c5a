"""A strict API server of a Kubernetes cluster in memory, with controllers of its own under a clock that tests move.

Over a real socket with TLS and a token. Strict where a real one is: a patch that names an older resourceVersion is a
conflict, what the schema does not know is refused (kubernetes-validate), a list has pages, whose `continue` expires.
"""

from __future__ import annotations

from tests.strict_kube.controllers import Ill
from tests.strict_kube.server import NAMESPACE, TOKEN, StrictKube, running

__all__ = ["NAMESPACE", "TOKEN", "Ill", "StrictKube", "running"]
