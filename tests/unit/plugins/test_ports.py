# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ports that answer against ports that are declared: the judgement, and the asking on this machine's loopback."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.template import trust_as_template
from ansible_collections.fushuma.production.plugins.module_utils import ports
from ansible_collections.fushuma.production.plugins.module_utils.ports import Declared, Seen, differences
from ansible_collections.fushuma.production.plugins.modules.port_check import main
from hypothesis import given
from hypothesis import strategies as st

from ..roles.render import templar
from .modules import run_module

HOST, HOST6, FRIEND, STRANGER = "192.0.2.1", "2001:db8::1", "198.51.100.1", "203.0.113.1"
EVERY = range(1, 65536)


def web(**options: Any) -> Declared:
    return Declared(**{"ports": "443", "protocol": "tcp", "sources": None, "address": "", "setting": "web", **options})


def said(declared: list[Declared], answering: set[int], **options: Any) -> list[str]:
    seen = Seen(**{"address": HOST, "source": FRIEND, **options}, answering=frozenset(answering))
    return differences(declared, EVERY, seen)


@pytest.mark.parametrize(
    ("declared", "answering", "options"),
    [
        ([web()], {443}, {}),
        ([web(), web(address="0.0.0.0"), web(address=HOST)], {443}, {}),
        ([web(address="::")], set(), {}),
        ([web(address="::")], {443}, {"address": HOST6}),
        ([web(address="192.0.2.9")], set(), {}),
        ([web(ports="400-500")], set(), {}),
        ([web(ports="400-500")], {400, 443, 500}, {}),
        ([web(sources=["198.51.100.0/24"])], {443}, {}),
        ([web(sources=["198.51.100.0/24"])], set(), {"source": STRANGER}),
        ([web(sources=["198.51.100.0/24"]), web()], {443}, {"source": STRANGER}),
        ([web(sources=[])], set(), {}),
        ([web(protocol="udp")], set(), {}),
        # A private address that asks a public one is rewritten on the way, nobody here knows to what.
        ([web(sources=["10.9.0.0/16"])], {443}, {"source": "10.0.0.1", "address": "9.9.9.9"}),
        ([web(sources=["10.9.0.0/16"])], set(), {"source": "10.0.0.1", "address": "9.9.9.9"}),
        ([web(sources=["10.9.0.0/16"])], set(), {"source": ""}),
    ],
)
def test_as_declared(declared: list[Declared], answering: set[int], options: dict[str, Any]) -> None:
    assert said(declared, answering, **options) == []


@pytest.mark.parametrize(
    ("declared", "answering", "options", "sentence"),
    [
        ([], {5432}, {}, f"{HOST}:5432/tcp answers and is declared by nothing"),
        ([web()], {443, 80}, {}, f"{HOST}:80/tcp answers and is declared by nothing"),
        ([web()], set(), {}, f"{HOST}:443/tcp is declared by web and does not answer"),
        ([web(), web()], set(), {}, f"{HOST}:443/tcp is declared by web and does not answer"),
        ([web(address="0.0.0.0")], {443}, {"address": HOST6}, f"[{HOST6}]:443/tcp answers and is declared by nothing"),
        ([web(address=HOST6)], set(), {"address": HOST6}, f"[{HOST6}]:443/tcp is declared by web and does not answer"),
        ([web(protocol="udp")], {443}, {}, f"{HOST}:443/tcp answers and is declared by nothing"),
        ([web(ports="1-9")], {10}, {}, f"{HOST}:10/tcp answers and is declared by nothing"),
        (
            [web(sources=["198.51.100.0/24"])],
            {443},
            {"source": STRANGER},
            f"{HOST}:443/tcp answers {STRANGER}, which web does not let in",
        ),
        (
            [web(sources=["198.51.100.0/24"])],
            set(),
            {},
            f"{HOST}:443/tcp is declared by web and does not answer",
        ),
        (
            [web(protocol="udp")],
            set(),
            {"refused_udp": frozenset([443])},
            f"{HOST}:443/udp is declared by web and does not answer",
        ),
    ],
)
def test_not_as_declared(declared: list[Declared], answering: set[int], options: dict[str, Any], sentence: str) -> None:
    assert said(declared, answering, **options) == [sentence]


def test_a_port_that_was_not_asked_is_not_missed() -> None:
    assert differences([web()], range(1, 100), Seen(HOST, FRIEND, frozenset())) == []


@given(st.sets(st.integers(1, 65535), max_size=20), st.sets(st.integers(1, 65535), max_size=20))
def test_exactly_what_differs_is_named(declared: set[int], answering: set[int]) -> None:
    found = said([web(ports=str(port)) for port in declared], answering)
    assert {int(one.partition("/")[0].rpartition(":")[2]) for one in found} == declared ^ answering


@pytest.mark.parametrize(("text", "first", "last"), [("80", 80, 80), ("1-65535", 1, 65535), ("5-6", 5, 6)])
def test_ports_as_numbers(text: str, first: int, last: int) -> None:
    assert ports.numbers(text) == range(first, last + 1)


@pytest.mark.parametrize("text", ["", "0", "9-8", "1-65536", "http", "1,2"])
def test_what_is_no_port(text: str) -> None:
    with pytest.raises(ValueError, match="is no port and no range of ports: write for example"):
        ports.numbers(text)


# --- asking -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield int(one.getsockname()[1])


def closed() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def test_who_listens_is_found_among_all_ports_near_it(listening: int) -> None:
    near = range(max(1, listening - 500), min(65535, listening + 500))
    seen = ports.look("127.0.0.1", near, [], 30)
    assert listening in seen.answering
    assert seen.source == "127.0.0.1"
    assert len(seen.answering) < 100


@pytest.fixture
def dropping() -> Iterator[int]:
    """A port that drops: whoever listens accepts nobody, and has no room for more (listen(2))."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = int(listener.getsockname()[1])
        with socket.create_connection(("127.0.0.1", port)):
            yield port


def test_what_drops_is_given_up(dropping: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(ports.connecting("127.0.0.1", [dropping] * 7, 0.05, float("inf"), 3)) == []


def test_addresses_are_asked_at_the_same_time(dropping: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "PATIENCE", 2.0)
    began = time.monotonic()
    seen = ports.look_at_all(["127.0.0.1"] * 4, [dropping], [], 30)
    assert [one.answering for one in seen] == [frozenset()] * 4
    assert time.monotonic() - began < 6
    assert ports.look_at_all([], [dropping], [], 30) == []


def test_what_drops_does_not_hold_up_for_longer_than_there_is_time(dropping: int) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="0 ports were not asked in time"):
        list(ports.connecting("127.0.0.1", [dropping] * 3, 60, began + 0.2))
    assert time.monotonic() - began < 10


def test_it_ends_in_time() -> None:
    with pytest.raises(TimeoutError, match=r"127\.0\.0\.1: 9 ports were not asked in time"):
        ports.look("127.0.0.1", range(1, 10), [], -1)


def test_where_there_is_no_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections to a port are refused at once, and an address of no network has no source."""
    monkeypatch.setattr(ports, "family_of", lambda _address: socket.AF_UNIX)
    with pytest.raises(TypeError):
        ports.source_towards("127.0.0.1")
    monkeypatch.undo()
    assert ports.source_towards("255.255.255.255") == ""
    assert list(ports.connecting("255.255.255.255", [80], 1, float("inf"))) == []


def test_declared_udp_ports_that_refuse(listening: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        silent = int(one.getsockname()[1])
        refused = closed()
        declared = [web(ports=str(port), protocol="udp") for port in (silent, refused)]
        assert ports.look("127.0.0.1", [], declared, 30).refused_udp == {refused}


@pytest.mark.parametrize(
    ("limits", "addresses", "count"),
    [
        ((1024, 2048), 1, 1984),
        ((1024, 2048), 2, 992),
        ((100, 100), 1, 36),
        ((10, 10), 1, 1),
        ((10, 10), 2, 1),
        ((10**6, 10**6), 1, 4000),
        ((10**6, 10**6), 2, 4000),
        ((-1, -1), 2, 4000),
        ((64, -1), 2, 4000),
    ],
)
def test_as_many_connections_as_the_process_may_hold(
    limits: tuple[int, int], addresses: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _what: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _what, wanted: asked.append(wanted))
    assert ports.allowed_at_once(addresses) == count
    assert asked in ([], [(min(4000 * addresses + 64, limits[1] % 2**32), limits[1])])


# --- the module -------------------------------------------------------------------------------------------------------


def checked(capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    return run_module(main, capsys, **options)


def test_the_module_is_content(listening: int, capsys: pytest.CaptureFixture[str]) -> None:
    declared = [{"ports": str(listening), "setting": "test"}]
    result = checked(capsys, addresses=["127.0.0.1"], declared=declared, ports=str(listening))
    assert (result["changed"], result["differences"], result["answering"]) == (False, [], {"127.0.0.1": [listening]})


def test_the_module_names_what_differs(listening: int, capsys: pytest.CaptureFixture[str]) -> None:
    result = checked(capsys, addresses=["127.0.0.1"], declared=[], ports=str(listening), check=True)
    assert result["failed"]
    assert result["msg"] == f"127.0.0.1:{listening}/tcp answers and is declared by nothing"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"addresses": []}, "There is no address to ask."),
        ({"addresses": ["web1"]}, "'web1' does not appear to be an IPv4 or IPv6 address"),
        ({"addresses": ["127.0.0.1"], "ports": "all"}, "'all' is no port and no range of ports"),
        ({"addresses": ["127.0.0.1"], "timeout": -1}, "127.0.0.1: 65535 ports were not asked in time"),
    ],
)
def test_what_the_module_cannot_work_with(
    options: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = checked(capsys, declared=[], **options)
    assert result["failed"]
    assert message in result["msg"]


def test_the_module_takes_what_the_filter_gives() -> None:
    given = templar().evaluate_expression(trust_as_template("({} | fushuma.production.firewall_model).declared"))
    assert set(given[0]) == set(Declared.__dataclass_fields__)


def test_the_playbook_hands_over_what_opens_ports() -> None:
    """Every setting that the filter looks at for `declared`."""
    playbook = Path(__file__).parents[3].joinpath("playbooks", "check_ports.yml").read_text("utf-8")
    for name in ("firewall_listens", "firewall_open", "firewall_published", "firewall_ssh"):
        assert f"{name}: " in playbook
