"""What AWS says when it says no, in our own words. Pure.

RefusedError
└── DeniedError     the credentials lack a permission, which is named
OutsideError
├── UnreachableError    no answer from a region's endpoint
└── AwsError            the service answered with an error `code`
"""

from __future__ import annotations

from hardening.foundation.errors import OutsideError, RefusedError

DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "UnauthorizedAccess", "AuthorizationError"}
CREDENTIALS = {
    *("AuthFailure", "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"),
    *("RequestExpired", "OptInRequired", "SignatureDoesNotMatch", "InvalidSignatureException"),
}


class DeniedError(RefusedError):
    """A permission is missing; `permission` as IAM policies name it."""

    def __init__(self, permission: str, account: str, region: str, evidence: str) -> None:
        super().__init__(
            f"AWS denies {permission} in {region} (account {account or 'of the credentials'})",
            evidence=evidence,
            hint=f"allow {permission} to the role or user; docs/aws.md lists what each task needs",
        )
        self.permission = permission


class UnreachableError(OutsideError):
    """A region's endpoint gave no answer, however often it was asked."""

    def __init__(self, service: str, region: str, evidence: str) -> None:
        super().__init__(
            f"{service} in {region} cannot be reached", evidence=evidence,
            hint="is the region's name right and enabled, the network up? AWS_ENDPOINT_URL leads elsewhere if set",
        )  # fmt: skip
        self.region = region


class AwsError(OutsideError):
    """The service answered with an error; `code` is its own word for it."""

    def __init__(self, operation: str, region: str, code: str, evidence: str) -> None:
        super().__init__(f"{operation} failed in {region}: {code}", evidence=evidence)
        self.code = code


def from_code(permission: str, account: str, region: str, code: str, message: str) -> OutsideError | DeniedError:
    """The error for a service's answer `code` to the call that `permission` allows."""
    if code.removeprefix("Client.") in DENIED:
        return DeniedError(permission, account, region, message)
    error = AwsError(permission, region, code, message)
    if code in CREDENTIALS:
        error.hint = "the credentials do not work there: log in again, and see that the region is enabled"
    return error
