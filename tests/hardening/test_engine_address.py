"""Which addresses of engines a fleet may name, and what its hosts are called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.foundation.engine_address import engine_address
from hardening.foundation.settings import Docker
from hardening.foundation.ssh import STRICT, ssh_command


@pytest.mark.parametrize(
    ("text", "label", "name", "user", "port"),
    [
        ("unix:///run/docker.sock", "local", "", "", 0),
        ("unix:///var/run/docker.sock", "local", "", "", 0),
        ("unix:///run/user/1000/docker.sock", "run-user-1000-docker.sock", "", "", 0),
        ("tcp://10.0.0.5:2376", "10.0.0.5", "10.0.0.5", "", 2376),
        ("tcp://10.0.0.5", "10.0.0.5", "10.0.0.5", "", 2376),
        ("tcp://web-1.example.com:4711", "web-1.example.com:4711", "web-1.example.com", "", 4711),
        ("tcp://[fd00::5]:2376", "fd00::5", "fd00::5", "", 2376),
        ("ssh://ops@web-2", "web-2", "web-2", "ops", 0),
        ("ssh://web-2:22", "web-2", "web-2", "", 22),
        ("ssh://web-2:2222", "web-2:2222", "web-2", "", 2222),
    ],
)
def test_what_an_address_means(text: str, label: str, name: str, user: str, port: int) -> None:
    """The same host has the same label whichever way leads to it."""
    found = engine_address(text)
    assert (found.label, found.name, found.user, found.port) == (label, name, user, port)
    assert found.is_remote is (found.scheme != "unix")


@pytest.mark.parametrize(
    "text",
    [
        "ssh://-oProxyCommand=id", "ssh://ops@-oProxyCommand=id", "ssh://-l@web-2", "ssh://web-2/x", "ssh://web-2?x=1",
        "ssh://web 2", "ssh://web-2\n", "ssh://ops:hunter2@web-2", "ssh://@web-2", "ssh://", "ssh://web-2:0",
        "ssh://web-2:70000", "ssh://a..b", "ssh://web-", "ssh://[::1%eth0]", "ssh://[nonsense]", "ssh://$(id)",
        "tcp://user@10.0.0.5", "tcp://10.0.0.5:2376/path", "http://10.0.0.5:2375", "https://10.0.0.5", "fd://x", "",
        "unix://run/docker.sock", "unix:///", "unix:///run/../etc", "unix:///run/a b", f"unix:///{'x' * 120}", "web-2",
        "npipe:////./pipe/docker", "ssh://wéb",
    ],
)  # fmt: skip
def test_no_other_address_is_one(text: str) -> None:
    """Nothing that could be an option or a command, no password, no path; and no password is shown."""
    with pytest.raises(ValueError, match=r"://|scheme") as refused:
        engine_address(text)
    assert "hunter2" not in str(refused.value)


@given(st.text(alphabet="-=@:/.[]abz09 $`'\"\\\n", max_size=30))
def test_whatever_is_taken_is_no_option_of_ssh(rest: str) -> None:
    """Of the words that ssh gets, only our own begin with a dash, and the host follows the end of options."""
    try:
        command = ssh_command(engine_address(f"ssh://{rest}"), None, "docker", "system", "dial-stdio")
    except ValueError:
        return
    *options, host, docker, system, dial = command
    assert (options[-1], docker, system, dial) == ("--", "docker", "system", "dial-stdio")
    assert not host.startswith("-")
    given = [one for one in options[1:-1] if not one.startswith("-o")]
    assert given[::2] == [one for one in ("-p", "-l") if one in given]
    assert not any(one.startswith("-") for one in given[1::2])
    assert {one for one in options if one.startswith("-o")} == {f"-o{key}={value}" for key, value in STRICT.items()}


def test_ssh_trusts_no_key_that_it_does_not_know() -> None:
    """By none of the ways that its configuration has."""
    assert {key: STRICT[key] for key in ("StrictHostKeyChecking", "BatchMode", "VerifyHostKeyDNS")} == {
        "StrictHostKeyChecking": "yes", "BatchMode": "yes", "VerifyHostKeyDNS": "no",
    }  # fmt: skip
    assert STRICT["NoHostAuthenticationForLocalhost"] == "no"
    assert Docker().ssh_config is None
