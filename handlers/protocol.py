"""What uvicorn answers by itself, before there is a request to route: also as problem documents."""

import re
from http import HTTPStatus
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from handlers.problems import MEDIA_TYPE, Code, document

# httptools sets no limit of its own. nginx allows 32 KiB of headers, Apache's httpd 100 fields of 8.
MAX_HEAD_BYTES: Final = 32 * 1024

_UPGRADE: Final = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, with a bound on the request's head and errors as problem documents.

    Offers to upgrade are ignored, as RFC 9110 (7.8) allows. Java's HttpClient and `curl --http2` make
    one with every request, and httptools would then take the request's body for the new protocol.
    """

    _in_head = False
    _in_body = False
    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            head, end, rest = data.partition(b"\r\n\r\n")
            data = _UPGRADE.sub(b"\r\nx-upgrade:", head) + end + rest
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("")

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's sentence; ours is in the table
        body = document(Code.MALFORMED_REQUEST)
        status = HTTPStatus.BAD_REQUEST
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
