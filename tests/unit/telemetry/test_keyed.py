"""The keyed digest is that of the RFC, and so of everybody who checks it."""

import hmac

from hypothesis import given
from hypothesis import strategies as st

from proxy.telemetry.keyed import Keyed


@given(st.binary(max_size=200), st.lists(st.binary(max_size=300), max_size=4))
def test_it_is_hmac_sha_256(key: bytes, texts: list[bytes]) -> None:
    """RFC 2104, compared with Python's; keys longer than a block too, and one after the other."""
    keyed = Keyed(key)
    for text in texts:
        assert keyed(text) == hmac.digest(key, text, "sha256").hex()
