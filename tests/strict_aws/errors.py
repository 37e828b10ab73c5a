"""What the emulator refuses, as AWS says it: a code, a message, the HTTP status, and modelled members."""

from __future__ import annotations

from typing import Any


class AwsError(Exception):
    """An answer that is an error. `status` 0 means: what the service's model says, else 400."""

    def __init__(self, code: str, message: str, status: int = 0, **members: Any) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status, self.members = code, message, status, members


def invalid(reason: str, message: str) -> AwsError:
    """EBS direct's ValidationException with its modelled reason."""
    return AwsError("ValidationException", message, 400, Reason=reason)


def bad_value(message: str) -> AwsError:
    """EC2's InvalidParameterValue."""
    return AwsError("InvalidParameterValue", message)
