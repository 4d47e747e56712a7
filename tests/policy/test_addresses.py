"""Addresses that alerts may be sent to."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from policy.addresses import refusal


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_a_public_address_is_allowed(address: str) -> None:
    assert refusal(address) is None


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254",
        "100.64.0.1", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "224.0.0.1", "ff02::1", "255.255.255.255",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "2002:7f00:1::",
        "2001:0:a00:1::1", "192.0.2.1", "198.18.0.1", "240.0.0.1", "192.0.0.9", "192.88.99.1",
        "fec0::1", "64:ff9b:1::a00:1", "::10.0.0.1", "::ffff:0:10.0.0.1", "5f00::1", "3fff::1",
    ],
)  # fmt: skip
def test_what_is_not_public_is_refused_however_it_is_written(address: str) -> None:
    why = refusal(address)
    assert why is not None
    assert why.endswith("is not a public address.")


@pytest.mark.parametrize("text", ["localhost", "", "0x7f.1", "2130706433", "hooks.example.org"])
def test_a_name_is_no_address(text: str) -> None:
    assert "is not an IP address" in str(refusal(text))


def test_a_setting_allows_networks() -> None:
    allowed = [ip_network("10.2.0.0/16"), ip_network("fd00::/8")]
    assert refusal("10.2.3.4", allowed) is None
    assert refusal("::ffff:10.2.3.4", allowed) is None
    assert refusal("fd00::1", allowed) is None
    assert refusal("10.3.0.1", allowed) is not None
    assert refusal("127.0.0.1", allowed) is not None
