"""On PYTHONPATH: a process that reaches beyond this machine is refused, and what it did is noted.

A library may swallow the error, so the note in $R1RECIPES_NETWORK_LOG is what a test looks at.
Connections from Python alone are seen; a UDP socket that is only connected sends nothing, and is
how a process asks for its own address.
"""

import os
import socket
import traceback

_connect, _connect_ex, _getaddrinfo = (
    socket.socket.connect,
    socket.socket.connect_ex,
    socket.getaddrinfo,
)


def _is_own(host):
    """Whether an address, or a name that needs no question to anybody, is of this machine."""
    if host in (None, "", "localhost", b"localhost", socket.gethostname()):
        return True
    try:
        family = socket.AF_INET6 if ":" in str(host) else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
        return True
    except OSError:
        return False


def _refuse(what):
    with open(os.environ["R1RECIPES_NETWORK_LOG"], "a") as log:
        stack = traceback.extract_stack()[-8:-2]
        callers = " < ".join(f"{frame.filename}:{frame.lineno}" for frame in reversed(stack))
        log.write(f"{what}  {callers}\n")
    raise ConnectionRefusedError(f"a test forbids the network: {what}")


def _check(sock, address):
    outside = sock.family in (socket.AF_INET, socket.AF_INET6) and not _is_own(address[0])
    if outside and sock.type == socket.SOCK_STREAM:
        _refuse(f"connect {address[0]}:{address[1]}")


def connect(self, address):
    _check(self, address)
    return _connect(self, address)


def connect_ex(self, address):
    _check(self, address)
    return _connect_ex(self, address)


def getaddrinfo(host, *arguments, **options):
    if not _is_own(host):
        _refuse(f"look up {host}")
    return _getaddrinfo(host, *arguments, **options)


if "R1RECIPES_NETWORK_LOG" in os.environ:
    socket.socket.connect, socket.socket.connect_ex = connect, connect_ex
    socket.getaddrinfo = getaddrinfo
