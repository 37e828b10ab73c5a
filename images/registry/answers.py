"""What a failed skopeo means for the person who reads it. Pure."""

from __future__ import annotations

import re

from hardening.foundation.errors import ContentError, GoldsmithError, OutsideError

# A proxy for plain HTTP that is not there: whoever was asked by HTTPS may not send us, and a login, on to HTTP.
NO_PLAIN_HTTP = "http://127.0.0.1:1"
# The registry's own words. A bare 404, or a helper that is "not found", says nothing about what the registry holds.
MISSING = re.compile(r"manifest unknown|name unknown|repository name not known|unknown: artifact \S+ not found", re.I)
CREDENTIALS = re.compile(r"getting credentials|docker-credential-", re.I)
DENIED = re.compile(r"unauthorized|authentication required|denied|forbidden|invalid username", re.I)
STRANGER = re.compile(r"status\W*(code)?\W*404", re.I)
CERTIFICATE = re.compile(r"x509|certificate|HTTP response to HTTPS", re.I)
FULL = re.compile(r"no space left|disk quota", re.I)
LARGE = re.compile(r"file too large|SIGXFSZ|exceeded maximum allowed size|out of memory|cannot allocate memory", re.I)
REDIRECT = re.compile(rf"proxyconnect tcp: dial tcp {re.escape(NO_PLAIN_HTTP.removeprefix('http://'))}:", re.I)
LIE = re.compile(r"digest did not match|does not match provided manifest digest|invalid checksum digest", re.I)
PERMANENT = (FULL, LARGE, REDIRECT, LIE, CREDENTIALS, DENIED, CERTIFICATE, MISSING, STRANGER)
ANSWERS = (
    (FULL, "a disk is full", "free space on the registry's or on this machine"),
    (LARGE, "the registry {} sends more than it announced, or than any image needs", "is it the right registry?"),
    (
        REDIRECT,
        "the registry {} leads on to plain HTTP, which is not followed",
        "let the registry answer by HTTPS alone; a login would go over the network unencrypted",
    ),
    (LIE, "the registry {} gave other bytes than were asked for", "is something between us and it?"),
    (
        CREDENTIALS,
        "the login for the registry {} cannot be read",
        "install the credential helper that your login names, or log in again: docker login {}",
    ),
    (
        DENIED,
        "the registry {} does not allow it",
        "log in with `docker login {}`; a credential helper keeps the password",
    ),
    (
        CERTIFICATE,
        "the registry {} cannot be trusted",
        "set registry.ca_file to the private CA's PEM, or registry.insecure for plain HTTP",
    ),
    (
        STRANGER,
        "{} answers 404, and not in a registry's words",
        "is registry.address right? What answers there, such as a proxy or a website, is no registry",
    ),
)
UNREACHABLE = [
    "the registry {} cannot be reached or failed",
    "is the registry up, and registry.address right? ./goldsmith doctor",
]


class NotFoundError(ContentError):
    """What was asked for is not in the registry."""


def explain(stderr: str, address: str) -> GoldsmithError:
    """What a failed skopeo, which wrote `stderr`, means: by the registry's own words, as far as they are known."""
    evidence, host = stderr.strip()[-1000:], address.partition("/")[0]
    if MISSING.search(evidence):
        return NotFoundError("not in the registry", evidence=evidence)
    what, hint = next((answer for reason, *answer in ANSWERS if reason.search(evidence)), UNREACHABLE)
    return OutsideError(what.format(address), hint=hint.format(host), evidence=evidence)
