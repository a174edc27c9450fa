"""Sealing: how two edges prove a shared key to each other, and how what they then say is closed to others. PURE.

Each side's octets begin with a head: eight octets (the acceptor's say the version, the dialler's the id of its
signing key) and a nonce. Both nonces and that key give two keys, one for each direction (HKDF, RFC 5869). Then come
records: their length, and AES-256-GCM over the octets under a counter. Who opens a record under these keys knows
that its writer has the shared key and writes now: the first record of each side, a Hello, is the proof, and one that
was taken down from another connection, or is repeated, opens nowhere. Nobody who lacks the key hears more than a
nonce, and until the proof no more than a Hello's octets are held for anyone.
"""

import struct
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

VERSION = b"ramal/1\n"
NONCE = 32
"""Octets."""
HEAD = len(VERSION) + NONCE
PURPOSE = b"ramal connection between edges, 1"
"""One shared key serves several purposes; none of their keys is another's."""
KEY = 32
TAG = 16
HELLO = 1024
"""The most that the first record may hold."""
RECORD = 512 * 1024
"""The most that any other may."""

_length = struct.Struct(">I")


class BadRecord(Exception):
    """The other side does not have the key, or its octets were changed; `name` is that of the drop."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Sealing:
    """One side of one connection: octets in, opened records out, and the other way round."""

    def __init__(self, keys: Mapping[str, bytes], nonce: bytes, *, dials: bool) -> None:
        """The first key signs, all verify; `nonce` is random and of this connection alone."""
        self._keys = keys
        self._nonce = nonce
        self._dials = dials
        self._signing = next(iter(keys))
        self.head = (self._signing.encode().ljust(len(VERSION), b"\0") if dials else VERSION) + nonce
        """What this side's octets begin with."""
        self.proved = False
        """Whether a record of the other side was opened."""
        self._buffer = bytearray()
        self._sealer: AESGCM | None = None
        self._opener: AESGCM | None = None
        self._sealed = self._opened = 0

    @property
    def agreed(self) -> bool:
        """Whether the other side's head has come, so that `seal` can be used."""
        return self._sealer is not None

    def seal(self, record: bytes) -> bytes:
        """The octets of a record."""
        if self._sealer is None:
            raise RuntimeError("sealed before the other side's head has come")
        counter = self._sealed.to_bytes(12, "big")
        self._sealed += 1
        sealed = self._sealer.encrypt(counter, record, None)
        return _length.pack(len(sealed)) + sealed

    def feed(self, data: bytes) -> list[bytes]:
        """The records that are whole now, opened; raises BadRecord, and is of no use after that."""
        buffer = self._buffer
        buffer += data
        if self._opener is None:
            if len(buffer) < HEAD:
                return []
            self._sealer, self._opener = self._agree(bytes(buffer[:HEAD]))
            del buffer[:HEAD]
        records: list[bytes] = []
        begin = 0
        while len(buffer) >= begin + 4:
            (length,) = _length.unpack_from(buffer, begin)
            if length > (RECORD if self.proved else HELLO) + TAG:
                raise BadRecord("edge-record-too-long")
            end = begin + 4 + length
            if len(buffer) < end:
                break
            records.append(self._open(self._opener, bytes(buffer[begin + 4 : end])))
            begin = end
        del buffer[:begin]
        return records

    def _open(self, opener: AESGCM, sealed: bytes) -> bytes:
        counter = self._opened.to_bytes(12, "big")
        self._opened += 1
        try:
            record = opener.decrypt(counter, sealed, None)
        except InvalidTag:
            raise BadRecord("edge-record-forged" if self.proved else "edge-stranger") from None
        self.proved = True
        return record

    def _agree(self, head: bytes) -> tuple[AESGCM, AESGCM]:
        """What seals and what opens, by the other side's head."""
        said, nonce = head[: len(VERSION)], head[len(VERSION) :]
        if self._dials:
            if said != VERSION:
                raise BadRecord("edge-stranger")
            key, nonces = self._keys[self._signing], nonce + self._nonce
        else:
            known = self._keys.get(said.rstrip(b"\0").decode("latin-1"))
            if known is None:
                raise BadRecord("edge-stranger")
            key, nonces = known, self._nonce + nonce
        derived = HKDF(SHA256(), 2 * KEY, salt=nonces, info=PURPOSE).derive(key)
        to_acceptor, to_dialler = AESGCM(derived[:KEY]), AESGCM(derived[KEY:])
        return (to_acceptor, to_dialler) if self._dials else (to_dialler, to_acceptor)
