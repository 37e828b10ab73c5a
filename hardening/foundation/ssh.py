"""How a machine is asked by ssh: its own program and no library, which reads the files in which people keep keys, jumps
and known hosts; here it refuses every host key that is not known. Pure.
"""

from __future__ import annotations

from pathlib import Path

from hardening.foundation.engine_address import EngineAddress

PASSES = ("SSH_AUTH_SOCK",)  # of our environment, what ssh needs besides the plain variables
STRICT = {
    "BatchMode": "yes", "StrictHostKeyChecking": "yes", "VerifyHostKeyDNS": "no", "UpdateHostKeys": "no",
    "NoHostAuthenticationForLocalhost": "no", "KnownHostsCommand": "none", "ControlMaster": "no", "ControlPath": "none",
    "ForwardAgent": "no", "ForwardX11": "no", "ClearAllForwardings": "yes", "PermitLocalCommand": "no",
    "RemoteCommand": "none", "RequestTTY": "no", "LogLevel": "ERROR", "ConnectTimeout": "15",
    "ServerAliveInterval": "15", "ServerAliveCountMax": "4",
}  # fmt: skip


def ssh_command(address: EngineAddress, config: Path | None, *words: str) -> tuple[str, ...]:
    """What runs `words` on a machine, by ssh. What STRICT says, no configuration changes."""
    return (
        "ssh", *(("-F", str(config)) if config else ()), *(f"-o{key}={value}" for key, value in STRICT.items()),
        *(("-p", str(address.port)) if address.port else ()), *(("-l", address.user) if address.user else ()),
        "--", address.name, *words,
    )  # fmt: skip
