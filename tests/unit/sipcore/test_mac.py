"""The HMAC of nonces, branches and tokens is the standard one, whatever the key."""

import hmac

import pytest

from sipcore import mac


@pytest.mark.parametrize("size", [1, 32, 63, 64, 65, 200])
def test_a_digest_is_hmac_sha_256_for_keys_of_any_size_and_each_time(size: int) -> None:
    key = bytes(range(size))
    for covered in (b"", b"branch", bytes(1000), b"branch"):
        assert mac.digest(key, covered) == hmac.digest(key, covered, "sha256")
