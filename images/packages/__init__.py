"""The package index: resolved by apt itself, in its own root; parsing of formats is separate and pure."""

DECIDING = (
    "/etc/apt/", "/etc/dpkg/", "/etc/ld.so", "/etc/nsswitch.conf", "/etc/pam.", "/etc/security/", "/etc/ssh/",
    "/etc/ssl/", "/etc/sudoers",
)  # fmt: skip
"""Beginnings of the paths of files that decide who may log in, what programs load, and whom they trust."""
