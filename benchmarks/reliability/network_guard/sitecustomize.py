"""On PYTHONPATH: a process that reaches beyond this machine is refused, and its attempt is noted.

A library may swallow the error, so a test reads the note in $R1RECIPES_NETWORK_LOG. Limits:
connections from Python alone are seen; a UDP socket that is only connected sends nothing and is how
a process asks for its own address, so it is allowed.
"""

import os
import socket
import traceback
from typing import Any

_connect, _connect_ex, _getaddrinfo = (
    socket.socket.connect,
    socket.socket.connect_ex,
    socket.getaddrinfo,
)


def _is_own(host: str | bytes | None) -> bool:
    """Whether an address, or a name that needs no look-up, belongs to this machine."""
    if host in (None, "", "localhost", b"localhost", socket.gethostname()):
        return True
    try:
        family = socket.AF_INET6 if ":" in str(host) else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
        return True
    except OSError:
        return False


def _refuse(attempt: str) -> None:
    with open(os.environ["R1RECIPES_NETWORK_LOG"], "a") as log:
        stack = traceback.extract_stack()[-8:-2]
        callers = " < ".join(f"{frame.filename}:{frame.lineno}" for frame in reversed(stack))
        log.write(f"{attempt}  {callers}\n")
    raise ConnectionRefusedError(f"a test forbids the network: {attempt}")


def _check(sock: socket.socket, address: Any) -> None:
    is_internet = sock.family in (socket.AF_INET, socket.AF_INET6)
    if is_internet and sock.type == socket.SOCK_STREAM and not _is_own(address[0]):
        _refuse(f"connect {address[0]}:{address[1]}")


def connect(self: socket.socket, address: Any) -> None:
    _check(self, address)
    _connect(self, address)


def connect_ex(self: socket.socket, address: Any) -> int:
    _check(self, address)
    return _connect_ex(self, address)


def getaddrinfo(host: str | bytes | None, *arguments: Any, **options: Any) -> Any:
    if not _is_own(host):
        _refuse(f"look up {host!r}")
    return _getaddrinfo(host, *arguments, **options)


if "R1RECIPES_NETWORK_LOG" in os.environ:
    setattr(socket.socket, "connect", connect)  # noqa: B010  (mypy refuses to assign to a method)
    setattr(socket.socket, "connect_ex", connect_ex)  # noqa: B010
    socket.getaddrinfo = getaddrinfo
