"""What is asked beside a case about kept answers, so that it shows what was kept. Stand → changes to Evidence.

Sentences and steps are looked up in probes.py.
"""

import json
from typing import Any

from tests.corpus.cache_stand import CAP_BYTES, CAROL, ROOT, KeepStand, SharedKeepStand
from tests.corpus.evidence import Evidence
from tests.corpus.fake_server import BOB
from tests.corpus.pressure import repeated
from tests.corpus.scripts import Script
from tests.corpus.stand import Stand

LONG_BYTES = 16 << 10
KEYS = 6 * CAP_BYTES // LONG_BYTES
"""Of the 100,000 that the corpus asks for: with long answers, six times as much as may be kept."""
_WARM = 40
ALMOST = "0.1000000000000000055511151231257827021181583404541015625"
"""The number of JSON-026, which is read as the double that 0.1 is read as."""


async def without_wish(stand: Stand, e: Evidence) -> dict[str, Any]:
    """The request of the case without what keeps it from the cache, twice."""
    assert isinstance(stand, KeepStand)
    request = stand.like(e.case, without=["Cache-Control"])
    return {"afterwards": tuple([await stand.tell(request) for _ in range(2)])}


async def huge_again(stand: Stand, e: Evidence) -> dict[str, Any]:
    """The same once more, after a look at the memory that it took; and a small one twice."""
    assert isinstance(stand, KeepStand)
    growth = (e.rss_growth_bytes or 0) + stand.sidecar.peak_rss_bytes()
    small = stand.like(e.case, arguments={"mb": 0, "n": 1})
    requests = (stand.like(e.case), small, small)
    return {
        "rss_growth_bytes": growth,
        "afterwards": tuple([await stand.tell(request) for request in requests]),
    }


async def without_inject(stand: Stand, e: Evidence) -> dict[str, Any]:
    """What others are told who send something else where the rule does not look, and who send nothing there."""
    assert isinstance(stand, KeepStand)
    asked: tuple[tuple[str, dict[str, str]], ...] = (
        (BOB, {"q": "x", "inject": "b"}),
        (CAROL, {"q": "x"}),
        (ROOT, {"q": "x"}),
    )
    told = [await stand.tell(stand.like(e.case, who, arguments=arguments), who) for who, arguments in asked]
    return {"afterwards": tuple(told)}


async def looks(stand: Stand, e: Evidence) -> dict[str, Any]:
    """Whether what was put into the store has come to life."""
    assert isinstance(stand, SharedKeepStand)
    return {"has_unpickled": stand.cursed is None or stand.cursed.exists()}


async def almost_the_same(stand: Stand, e: Evidence) -> dict[str, Any]:
    """0.1 twice, and then what is not 0.1 to a server that reads all digits; of a tool whose answers are kept."""
    assert isinstance(stand, KeepStand)
    body = e.sent_body.replace(b'"echo"', b'"read_doc"')
    assert body.count(ALMOST.encode()) == 1
    bodies = [body.replace(ALMOST.encode(), b"0.1")] * 2 + [body]
    return {
        "afterwards": tuple([await stand.tell(stand.like(e.case, body=each)) for each in bodies]),
    }


async def many_keys(stand: Stand, sent: bytes) -> dict[str, Any]:
    """Ever new documents; and what it costs to keep what may be kept. The first and the last are asked for again."""
    assert isinstance(stand, KeepStand)
    sidecar, upstream = stand.sidecar, stand.around.upstream
    script = Script(result={"content": [{"type": "text", "text": "x" * LONG_BYTES}]})
    requests = iter([_other(stand, sent, number) for number in range(_WARM + KEYS)])
    upstream.begin(script, sends_discover=False)
    await repeated(sidecar.data_port, lambda: next(requests), _WARM)
    rss = sidecar.rss_bytes()
    codes = await repeated(sidecar.data_port, lambda: next(requests), KEYS)
    growth = sidecar.rss_bytes() - rss
    ends = [_other(stand, sent, number) for number in (_WARM + KEYS - 1, _WARM)]
    told = tuple([await stand.tell(request) for request in ends])
    return {"repeats": codes, "asked": KEYS, "rss_growth_bytes": growth, "afterwards": told}


def _other(stand: KeepStand, sent: bytes, number: int) -> bytes:
    """The request of the case for another document."""
    head, _, body = sent.partition(b"\r\n\r\n")
    document = json.loads(body)
    document["params"]["arguments"]["doc"] = f"{stand.mark}.{number}"
    body = json.dumps(document).encode()
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length:")]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body)]) + b"\r\n\r\n" + body
