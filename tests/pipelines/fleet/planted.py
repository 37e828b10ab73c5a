"""A planted fleet, as data to review: each kind of violation with what breaks it, and its benign twin.

A container's row is what it is created with beside HARDENED. `evidence`: what must stand in the violation's evidence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MIB = 1 << 20
CONFIG: dict[str, Any] = {"User": "65532:65532"}
HARDENED: dict[str, Any] = {
    "ReadonlyRootfs": True,
    "Memory": 64 * MIB,
    "PidsLimit": 64,
    "SecurityOpt": ["no-new-privileges"],
    "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
    "NetworkMode": "fleet-test",
}


@dataclass(frozen=True)
class Planted:
    """One kind. `host` and `config` are parts of the request that creates the container; `twin_…` those of the twin.

    `also`: another rule that it breaks.
    """

    name: str
    rule: str
    evidence: str
    host: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    twin_host: dict[str, Any] = field(default_factory=dict)
    twin_config: dict[str, Any] = field(default_factory=dict)
    also: str = ""


def _bind(*binds: str) -> dict[str, Any]:
    return {"Binds": list(binds)}


def _volume(name: str, **options: str) -> dict[str, Any]:
    """A volume that the engine's local driver makes with these options."""
    driver = {"DriverConfig": {"Name": "local", "Options": options}}
    return {"Mounts": [{"Type": "volume", "Source": name, "Target": "/data", "VolumeOptions": driver}]}


CONTAINERS = (
    Planted("root by itself", "root_user", "what it was started with", config={"User": "0:0"},
            twin_config={"User": "1:0"}),
    Planted("root by its image", "root_user", "by its image", config={"User": ""}, twin_config={"User": "nobody"}),
    Planted("privileged", "privileged", "--privileged", {"Privileged": True}, twin_host={"Privileged": False}),
    Planted("engine's socket", "docker_socket", "docker.sock at /sock",
            _bind("/var/run/docker.sock:/sock"), twin_host=_bind("goldsmith-test-docker.sock:/sock")),
    Planted("directory of the socket, read-only", "docker_socket", "/var/run at /host",
            _bind("/var/run:/host:ro"), twin_host=_bind("goldsmith-test-run:/host:ro"), also="host_mount"),
    Planted("root of the host", "host_mount", "/ at /host, read-only",
            _bind("/:/host:ro"), twin_host=_bind("goldsmith-test-root:/host:ro"), also="docker_socket"),
    Planted("directory of the host", "host_mount", "/srv at /data, read-write",
            _bind("/srv:/data"), twin_host=_bind("goldsmith-test-data:/data")),
    Planted("directory of the host as a volume", "host_mount", "/srv/app at /data, read-write",
            _volume("goldsmith-test-bound", type="none", o="rw,bind", device="/srv/app"),
            twin_host=_volume("goldsmith-test-memory", type="tmpfs", o="size=1m", device="tmpfs")),
    Planted("file of the host, read-only", "host_mount", "/etc/hostname at /name, read-only",
            _bind("/etc/hostname:/name:ro"), twin_host=_bind("/opt/allowed:/name:ro")),
    Planted("capability", "added_capabilities", "SYS_ADMIN", {"CapAdd": ["SYS_ADMIN"]},
            twin_host={"CapAdd": ["NET_BIND_SERVICE"]}),
    Planted("all capabilities", "added_capabilities", "ALL", {"CapAdd": ["ALL"]}, twin_host={"CapDrop": ["ALL"]}),
    Planted("writable root", "writable_root", "--read-only", {"ReadonlyRootfs": False},
            twin_host={"Tmpfs": {"/tmp": ""}}),
    Planted("no memory limit", "no_limits", "no limit of memory", {"Memory": 0}, twin_host={"Memory": 8 * MIB}),
    Planted("no limit of processes", "no_limits", "no limit of pids", {"PidsLimit": -1}, twin_host={"PidsLimit": 2}),
    Planted("new privileges", "new_privileges", "not set", {"SecurityOpt": []},
            twin_host={"SecurityOpt": ["no-new-privileges:true"]}),
    Planted("new privileges by word", "new_privileges", "not set", {"SecurityOpt": ["no-new-privileges:false"]},
            twin_host={"SecurityOpt": ["no-new-privileges=true"]}),
    Planted("host's network", "host_namespaces", "network", {"NetworkMode": "host"}, twin_host={"NetworkMode": "none"}),
    Planted("host's processes", "host_namespaces", "pid", {"PidMode": "host"}),
    Planted("host's memory", "host_namespaces", "ipc", {"IpcMode": "host"}, twin_host={"IpcMode": "private"}),
    Planted("host's name", "host_namespaces", "uts", {"UTSMode": "host"}),
    Planted("log without end", "daemon_defaults", "grows without limit", {"LogConfig": {"Type": "json-file"}},
            twin_host={"LogConfig": {"Type": "none"}}),
    Planted("first network", "daemon_defaults", "icc", {"NetworkMode": "bridge"}),
)  # fmt: skip


@dataclass(frozen=True)
class PlantedInstance:
    """One kind. `launch` is a part of the launch's request; `lets_in` what its security group lets in."""

    name: str
    rule: str
    evidence: str
    launch: dict[str, Any] = field(default_factory=dict)
    lets_in: tuple[tuple[str, int, str], ...] = ()
    twin_launch: dict[str, Any] = field(default_factory=dict)
    twin_lets_in: tuple[tuple[str, int, str], ...] = ()


def _metadata(tokens: str, endpoint: str = "enabled", hops: int = 1) -> dict[str, Any]:
    return {"MetadataOptions": {"HttpTokens": tokens, "HttpEndpoint": endpoint, "HttpPutResponseHopLimit": hops}}


def _data(*, encrypted: bool) -> dict[str, Any]:
    ebs = {"VolumeSize": 2, "VolumeType": "gp3", "Encrypted": encrypted}
    return {"BlockDeviceMappings": [{"DeviceName": "/dev/sdf", "Ebs": ebs}]}


INSTANCES = (
    PlantedInstance("metadata without token", "imdsv1", "HttpTokens optional", _metadata("optional"),
                    twin_launch=_metadata("required", hops=2)),
    PlantedInstance("metadata without token, far", "imdsv1", "hop limit 2", _metadata("optional", hops=2),
                    twin_launch=_metadata("optional", "disabled")),
    PlantedInstance("volume in the clear", "unencrypted_volume", "at /dev/sdf", _data(encrypted=False),
                    twin_launch=_data(encrypted=True)),
    PlantedInstance("SSH for all", "open_group", "lets in tcp 22 from 0.0.0.0/0", lets_in=(("tcp", 22, "0.0.0.0/0"),),
                    twin_lets_in=(("tcp", 22, "10.0.0.0/8"),)),
    PlantedInstance("a port for all, IPv6", "open_group", "lets in tcp 8080 from ::/0",
                    lets_in=(("tcp", 8080, "::/0"),), twin_lets_in=(("tcp", 443, "::/0"),)),
    PlantedInstance("everything for all", "open_group", "lets in all from 0.0.0.0/0",
                    lets_in=(("-1", -1, "0.0.0.0/0"),), twin_lets_in=(("-1", -1, "10.0.0.0/8"),)),
)  # fmt: skip
