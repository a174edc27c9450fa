"""`python -m ramal.probe [PATH]`: whether the process of this container answers PATH (`/readyz`) with 200.

For health checks of containers. Exit code 0 or 1, and one line that says why. It is no command of `ramal`: one starts
in half a second of CPU, and a check that runs every few seconds in every container may not cost that.
"""

import os
import socket
import sys
from collections.abc import Mapping

SECONDS = 2.0
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  # what listens everywhere listens on loopback


def ask(path: str, environ: Mapping[str, str]) -> tuple[int, str]:
    """Status and body of `GET path` at RAMAL_HTTP_HOST and RAMAL_HTTP_PORT. Raises OSError or ValueError."""
    host = environ.get("RAMAL_HTTP_HOST", "").strip("[]")
    port = int(environ.get("RAMAL_HTTP_PORT", "0"))
    with socket.create_connection((_ANY.get(host, host), port), SECONDS) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        answer = b""
        while len(answer) < 65536 and (octets := connection.recv(65536)):
            answer += octets
    head, _, body = answer.decode(errors="replace").partition("\r\n\r\n")
    return int(head.split(" ", 2)[1]), body.strip()


def main() -> int:
    """Asks, says what was answered, returns the exit code."""
    path = sys.argv[1] if len(sys.argv) > 1 else "/readyz"
    try:
        status, body = ask(path, os.environ)
    except (OSError, ValueError, IndexError) as error:
        print(f"{path}: {error}")
        return 1
    print(f"{path}: {status} {body}")
    return status != 200


if __name__ == "__main__":
    sys.exit(main())
