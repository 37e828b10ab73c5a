"""What a child process may see of our environment: names that are listed here, and no other. Pure.

Variables decide what tools do and hold what people log in with: `TRIVY_SEVERITY`, `PYTHONPATH`, `LD_PRELOAD`,
`AWS_SECRET_ACCESS_KEY`, a database's URL. So each child gets the plain ones, and more only if its caller names a group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

PLAIN = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR", "SOURCE_DATE_EPOCH",
    "LC_ALL", "LC_COLLATE", "LC_CTYPE", "LC_MESSAGES", "LC_NUMERIC", "LC_TIME",
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME",
)  # fmt: skip

_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
# For what talks to a server: proxies, and the authorities that it trusts.
NETWORK = (
    *_PROXIES, *(name.upper() for name in _PROXIES), "SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
)  # fmt: skip

# For what logs in at a registry: where the login lies, never the login itself.
REGISTRY = (*NETWORK, "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR")

# For the docker command and BuildKit: which engine, and how it is reached.
ENGINE = (
    *REGISTRY, "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH",
    "DOCKER_API_VERSION", "BUILDX_CONFIG", "BUILDX_BUILDER", "SSH_AUTH_SOCK",
)  # fmt: skip


def allowed(environment: Mapping[str, str], more: Iterable[str] = ()) -> dict[str, str]:
    """The variables of `environment` that a child sees: the plain ones, and those that `more` names."""
    return {name: environment[name] for name in (*PLAIN, *more) if name in environment}
