"""Can replicas share? The store of `shared_state`: reached, believed, and allowed to do what limits and cache need.

In: settings. Out: findings. Connects as a sidecar does (`limits/valkey_link.py`), takes one of a bucket that is only
for this, and leaves. Needs the extra [redis]; settings with a store are refused without it.
"""

from __future__ import annotations

import asyncio
import secrets

from ..limits.settings import SharedStateSettings
from ..limits.shared_building import link
from ..limits.valkey_link import Ask, Unusable
from ..limits.valkey_script import Asking, Nonsense, packed, said
from ..limits.valkey_wire import MAX_REPLY_BYTES
from .asking import Clocks
from .finding import Findings, fail, ok


async def store(settings: SharedStateSettings, clocks: Clocks, *, is_for_cache: bool) -> Findings:
    """Raises SettingsError where ca_file cannot be used."""
    asking = Asking(settings.namespace)

    async def greet(ask: Ask) -> None:
        await ask(asking.load)
        (reply,) = await ask(asking.probe())
        try:
            told_s = said(reply, 1).now_s
        except Nonsense:
            raise Unusable("what answers is not a store that we know") from None
        clocks.told("the store", told_s)
        if is_for_cache:
            await ask(packed("EVAL", "return 1", 0))

    own = link(
        settings,
        greet,
        watch=lambda _, __: None,
        told=lambda _: None,
        chance=lambda: secrets.randbelow(1_000) / 1_000,
        max_reply_bytes=MAX_REPLY_BYTES,
    )
    running = asyncio.get_running_loop().create_task(own.run())
    try:
        await own.first_try()
        why = own.why_down if own.wire is None else None
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await own.close()
    where = settings.place.origin
    if why is not None:
        decides = (
            "each replica decides alone" if settings.on_outage == "local" else "what is limited is refused"
        )
        return [fail("store", f"{where}: {why}", f"until it is mended {decides}")]
    return [ok("store", f"{where} answers, and may run our script")]
