"""Answers as bytes, read as a client reads them."""

import http.client
import socket


def parsed(answer: bytes) -> tuple[http.client.HTTPResponse, bytes]:
    """Return ``answer``, behind which nothing may follow, as Python's HTTP client reads it, and its body."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(answer)
        ours.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(theirs)
        response.begin()
        body = response.read()
    assert answer.endswith(b"\r\n\r\n" + body)
    return response, body
