"""Runs on the host: listens on the TCP ports of the first argument and the UDP ports of the second, over IPv4 and IPv6.

Ports are separated by commas. UDP datagrams are answered with what they hold.
"""

from __future__ import annotations

import selectors
import socket
import sys

KINDS = (socket.SOCK_STREAM, socket.SOCK_DGRAM)

waiting = selectors.DefaultSelector()
for kind, ports in zip(KINDS, sys.argv[1:], strict=True):
    for port in filter(None, ports.split(",")):
        one = socket.socket(socket.AF_INET6, kind)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        one.bind(("::", int(port)))
        if kind == socket.SOCK_STREAM:
            one.listen()
        waiting.register(one, selectors.EVENT_READ)
while True:
    for key, _events in waiting.select():
        if key.fileobj.type == socket.SOCK_STREAM:
            key.fileobj.accept()[0].close()
        else:
            data, peer = key.fileobj.recvfrom(2048)
            key.fileobj.sendto(data, peer)
