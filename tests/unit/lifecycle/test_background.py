"""Jobs beside the calls: begun again when they fail, awaited at the end."""

import asyncio

from proxy.lifecycle.background import RESTART_S, Background


async def test_a_job_that_fails_is_reported_and_begun_again() -> None:
    """Own promise: keys go on being fetched whatever one round met."""
    errors: list[Exception] = []
    slept: list[float] = []
    rounds = 0
    again = asyncio.Event()

    async def job() -> None:
        nonlocal rounds
        rounds += 1
        if rounds < 3:
            raise RuntimeError(str(rounds))
        again.set()
        await asyncio.Event().wait()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    background = Background(errors.append, sleep=sleep)
    background.start(job)
    async with asyncio.timeout(5):
        await again.wait()
    await background.close()
    assert [str(error) for error in errors] == ["1", "2"]
    assert slept == [RESTART_S, RESTART_S]


async def test_closing_waits_until_every_job_has_ended() -> None:
    """No task is left behind, and none is cut off in the middle of its last words."""
    story: list[str] = []
    begun = asyncio.Event()

    async def job() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            story.append("ended")

    background = Background(lambda error: story.append("reported"))
    background.start(job)
    async with asyncio.timeout(5):
        await begun.wait()
    await background.close()
    assert story == ["ended"]
    await background.close()
