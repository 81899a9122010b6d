# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which ports of an address answer, asked from here, and how that differs from what was declared."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
import resource
import selectors
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

AT_ONCE = 4000  # connections under way; a port that drops holds one for `PATIENCE` seconds
SPARE_FILES = 64  # what the interpreter itself has open
PATIENCE = 1.2  # seconds; a SYN that was lost is repeated after one (RFC 6298 §2)
DECLARED_PATIENCE = 5.0  # seconds for ports that ought to answer
RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


@dataclass(frozen=True)
class Declared:
    """Ports that are open on purpose.

    ports: ``80`` or ``6000-6010``.  sources: networks that may connect; None for all.
    address: "" for all of the host's, ``0.0.0.0`` and ``::`` for those of one family, or a single one.
    """

    ports: str
    protocol: str
    sources: Sequence[str] | None
    address: str
    setting: str

    @classmethod
    def of(cls, one: Mapping[str, Any]) -> Declared:
        return cls(one["ports"], one["protocol"], one["sources"], one["address"], one["setting"])

    def is_at(self, address: str) -> bool:
        """Whether it is meant to answer at this address of the host."""
        if self.address in ("0.0.0.0", "::"):
            return (":" in address) == (":" in self.address)
        return not self.address or ipaddress.ip_address(self.address) == ipaddress.ip_address(address)

    def lets_in(self, source: str) -> bool | None:
        """Whether it lets this source in; None where nobody can tell what source the host sees."""
        if self.sources is None:
            return True
        if not source:
            return None
        return any(ipaddress.ip_address(source) in ipaddress.ip_network(one) for one in self.sources)


@dataclass(frozen=True)
class Seen:
    """What answers at one address. ``source`` is the address it was asked from."""

    address: str
    source: str
    answering: frozenset[int]
    refused_udp: frozenset[int] = frozenset()


def numbers(ports: str) -> range:
    """The ports of ``80`` or ``6000-6010``. Raises ValueError for what is neither."""
    found = RANGE.fullmatch(ports)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= last <= 65535:
        raise ValueError(f"{ports!r} is no port and no range of ports: write for example 443 or 1-65535")
    return range(first, last + 1)


# --- the judgement ----------------------------------------------------------------------------------------------------


def differences(declared: Sequence[Declared], asked: Iterable[int], seen: Seen) -> list[str]:
    """What answers and was not declared, and what was declared and does not answer, each as a sentence.

    Of a range nobody says that all of it is in use, so it is enough that nothing outside of it answers.
    """
    here = [one for one in declared if one.is_at(seen.address)]
    source = source_seen(seen)
    found = [f"{place(seen.address, port)}/tcp {why}" for port, why in _undeclared(here, source, seen)]
    tried = set(asked)
    for one in here:
        (first, *others) = numbers(one.ports)
        missing = one.protocol == "tcp" and first in tried and first not in seen.answering and one.lets_in(source)
        if not others and (missing or (one.protocol == "udp" and first in seen.refused_udp and one.lets_in(source))):
            why = f"is declared by {one.setting} and does not answer"
            found.append(f"{place(seen.address, first)}/{one.protocol} {why}")
    return list(dict.fromkeys(found))


def _undeclared(here: Sequence[Declared], source: str, seen: Seen) -> Iterator[tuple[int, str]]:
    for port in sorted(seen.answering):
        meant = [one for one in here if one.protocol == "tcp" and port in numbers(one.ports)]
        if not meant:
            yield port, "answers and is declared by nothing"
        elif all(one.lets_in(source) is False for one in meant):
            settings = " and ".join(dict.fromkeys(one.setting for one in meant))
            yield port, f"answers {source}, which {settings} does not let in"


def source_seen(seen: Seen) -> str:
    """The source as the host sees it; "" where a private address asks a public one, for then something rewrites it."""
    if not seen.source:
        return ""
    source, target = ipaddress.ip_address(seen.source), ipaddress.ip_address(seen.address)
    return "" if source.is_private and target.is_global else seen.source


def place(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


# --- asking -----------------------------------------------------------------------------------------------------------


def look_at_all(
    addresses: Sequence[str], asked: Sequence[int], declared: Sequence[Declared], seconds: float
) -> list[Seen]:
    """Ask the ports of all addresses of a host at the same time, for nearly all of it is waiting. Raises as `look`."""
    with ThreadPoolExecutor(max(1, len(addresses))) as pool:
        at_once = allowed_at_once(max(1, len(addresses)))
        return list(pool.map(lambda address: look(address, asked, declared, seconds, at_once), addresses))


def look(
    address: str, asked: Sequence[int], declared: Sequence[Declared], seconds: float, at_once: int = AT_ONCE
) -> Seen:
    """Ask the ports of one address. Raises TimeoutError where that is not done within ``seconds``."""
    deadline = time.monotonic() + seconds
    here = [one for one in declared if one.is_at(address)]
    answering = set(connecting(address, asked, PATIENCE, deadline, at_once))
    expected = {port for one in here if one.protocol == "tcp" for port in numbers(one.ports)}
    late = sorted((expected & set(asked)) - answering)
    answering.update(connecting(address, late, DECLARED_PATIENCE, deadline, at_once))
    udp = sorted({number for one in here if one.protocol == "udp" for number in numbers(one.ports)})
    return Seen(address, source_towards(address), frozenset(answering), frozenset(refusing_udp(address, udp)))


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def source_towards(address: str) -> str:
    """The address from which this machine asks another one; "" where it has no way there. Sends nothing."""
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as one:
        try:
            one.connect((address, 9))
        except OSError:
            return ""
        return str(one.getsockname()[0])


def allowed_at_once(addresses: int) -> int:
    """How many connections to each of its addresses a process may hold, having asked for all that it may ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = AT_ONCE * addresses + SPARE_FILES
    highest = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < highest:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
            soft = highest
    return AT_ONCE if soft == resource.RLIM_INFINITY else max(1, min(AT_ONCE, (soft - SPARE_FILES) // addresses))


def connecting(
    address: str, ports: Sequence[int], patience: float, deadline: float, at_once: int = AT_ONCE
) -> Iterator[int]:
    """The ports that accept a TCP connection, each asked once, so many at a time."""
    waiting: deque[tuple[float, socket.socket]] = deque()  # in the order in which their time is over
    left = deque(ports)
    with selectors.DefaultSelector() as selector:
        try:
            while left or waiting:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{address}: {len(left)} ports were not asked in time")
                while left and len(waiting) < at_once:
                    port = left.popleft()
                    one = _begun(address, port)
                    if one is not None:
                        selector.register(one, selectors.EVENT_WRITE, (port, one))
                        waiting.append((time.monotonic() + patience, one))
                until = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 0.0
                for key, _events in selector.select(min(until, 0.1)):
                    port, connection = key.data
                    selector.unregister(connection)
                    if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                        yield port
                    connection.close()
                _give_up(waiting, selector)
        finally:
            for _end, one in waiting:
                one.close()


def _begun(address: str, port: int) -> socket.socket | None:
    """A connection under way; None where there is no way there."""
    one = socket.socket(family_of(address), socket.SOCK_STREAM)
    one.setblocking(False)
    if one.connect_ex((address, port)) in (0, errno.EINPROGRESS):
        return one
    one.close()
    return None


def _give_up(waiting: deque[tuple[float, socket.socket]], selector: selectors.BaseSelector) -> None:
    """Forget the connections that have ended or whose time is over."""
    now = time.monotonic()
    while waiting and (waiting[0][1].fileno() < 0 or waiting[0][0] <= now):
        _end, one = waiting.popleft()
        if one.fileno() >= 0:
            selector.unregister(one)
            one.close()


def refusing_udp(address: str, ports: Sequence[int]) -> Iterator[int]:
    """The UDP ports that say that nobody listens there (ICMP port unreachable); silence says nothing."""
    for port in ports:
        with socket.socket(family_of(address), socket.SOCK_DGRAM) as one:
            one.settimeout(0.3)
            try:
                one.connect((address, port))
                one.send(b"")
                one.recv(1)
            except ConnectionRefusedError:
                yield port
            except OSError:
                continue
