"""The actor pool on a real local Ray cluster: results, deaths, retries, giving up."""

import asyncio
import gc
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from cache_schemas.errors import ConfigError
from labelgen.errors import SampleError
from pipelines.actor_pool import BROKEN_AFTER_CALLS, ActorPool, CallFailedError
from pipelines.errors import PipelineError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


@ray.remote
class Doubler:
    """Doubles numbers, and does to its process what a call's name says; marks each try in a folder."""

    def __init__(self, marks: str) -> None:
        self.marks = Path(marks)

    @ray.method(num_returns=2)
    def double(self, number: int, deed: str = "") -> tuple[str, int]:
        tries = len(list(self.marks.glob(f"{number}-*")))
        (self.marks / f"{number}-{tries}").touch()
        if deed == "die" or (deed == "die once" and tries == 0):
            os.kill(os.getpid(), signal.SIGKILL)
        if deed == "raise" or (deed == "raise once" and tries == 0):
            raise RuntimeError("CUDA out of memory\nwith details")
        if deed == "bad sample":
            raise SampleError("a.jpg: cut short")
        if deed == "bad setting":
            raise ConfigError("sam.architecture 'vit_x'")
        return f"doubled {number}", 2 * number


def pool_of(marks: Path, actors: int = 1, retries: int = 2) -> ActorPool:
    return ActorPool("doubler", lambda: Doubler.remote(str(marks)), actors, retries, print)


def ask(pool: ActorPool, *calls: tuple[Any, ...]) -> list[Any]:
    """Run all calls at once; returns each one's value, or the exception that it raised."""

    async def one(call: tuple[Any, ...]) -> Any:
        report, result = await pool.call(lambda actor: actor.double.remote(*call))
        assert report == f"doubled {call[0]}"
        return await result

    async def every() -> list[Any]:
        return await asyncio.gather(*map(one, calls), return_exceptions=True)

    return asyncio.run(every())


@ray.remote(num_cpus=1)
def number(value: int) -> int:
    return value


def test_an_actor_that_is_given_up_frees_its_cores_for_what_its_own_calls_wait_for(tmp_path: Path) -> None:
    """Two actors hold all cores, so the tasks that make their numbers cannot run, until one actor is gone."""
    cores = ray.cluster_resources()["CPU"] / 2
    pool = ActorPool("doubler", lambda: Doubler.options(num_cpus=cores).remote(str(tmp_path)), 2, 0, print)

    async def one(value: int) -> int:
        _, result = await pool.call(lambda actor: actor.double.remote(number.remote(value)))
        return await result

    async def every() -> list[int]:
        await pool.wait_until_ready()
        calls = asyncio.gather(*map(one, range(4)))
        await asyncio.sleep(1)
        assert not list(tmp_path.iterdir())
        pool.give_up_one()
        return await asyncio.wait_for(calls, 30)

    try:
        assert asyncio.run(every()) == [0, 2, 4, 6]
    finally:
        pool.close()


def tries_of(marks: Path, number: int) -> int:
    return len(list(marks.glob(f"{number}-*")))


def test_each_call_gets_its_own_result(tmp_path: Path) -> None:
    assert ask(pool_of(tmp_path, actors=2), *((n,) for n in range(12))) == [2 * n for n in range(12)]


def test_a_call_that_always_kills_its_worker_is_given_up_and_the_others_are_not(tmp_path: Path) -> None:
    results = ask(pool_of(tmp_path), (1,), (2, "die"), (3,), (4,), (5,))
    assert results[0] == 2
    assert results[2:] == [6, 8, 10]
    assert isinstance(results[1], CallFailedError)
    assert "worker died" in str(results[1])
    assert "3 tries" in str(results[1])
    assert tries_of(tmp_path, 2) == 4  # once beside others, then three times alone


def test_a_death_is_charged_to_the_call_that_caused_it_only(tmp_path: Path) -> None:
    assert ask(pool_of(tmp_path, retries=0), (1,), (2, "die"), (3,))[2] == 6


def test_a_call_that_fails_once_is_tried_again(tmp_path: Path) -> None:
    assert ask(pool_of(tmp_path), (1, "die once"), (2, "raise once"), (3,)) == [2, 4, 6]


def test_a_call_that_always_raises_is_given_up_with_its_reason(tmp_path: Path) -> None:
    _, failed = ask(pool_of(tmp_path, retries=1), (1,), (2, "raise"))
    assert str(failed) == "RuntimeError: CUDA out of memory (2 tries)"
    assert tries_of(tmp_path, 2) == 2


@pytest.mark.parametrize(("deed", "kind"), [("bad sample", SampleError), ("bad setting", ConfigError)])
def test_errors_that_trying_again_cannot_mend_are_raised_as_they_are(tmp_path: Path, deed: str, kind: type) -> None:
    (error,) = ask(pool_of(tmp_path), (1, deed))
    assert type(error) is kind
    assert tries_of(tmp_path, 1) == 1


def test_a_pool_that_never_succeeds_stops_the_run(tmp_path: Path) -> None:
    results = ask(pool_of(tmp_path, retries=0), *((n, "raise") for n in range(BROKEN_AFTER_CALLS + 2)))
    assert {type(error) for error in results} == {PipelineError}, "no call is blamed for what the pool does to all"
    assert "CUDA out of memory" in str(results[0])


def test_few_calls_that_all_fail_are_each_given_up(tmp_path: Path) -> None:
    results = ask(pool_of(tmp_path, retries=0), *((n, "raise") for n in range(BROKEN_AFTER_CALLS - 1)))
    assert {type(error) for error in results} == {CallFailedError}


@ray.remote
class Frail:
    """Dies while it loads, so many times."""

    def __init__(self, marks: str, deaths: int) -> None:
        tries = len(list(Path(marks).iterdir()))
        (Path(marks) / str(tries)).touch()
        if tries < deaths:
            os.kill(os.getpid(), signal.SIGKILL)


@ray.remote
class Broken:
    """Cannot load."""

    def __init__(self) -> None:
        raise ConfigError("sam.architecture 'vit_x' is none of vit_b")

    @ray.method(num_returns=2)
    def double(self, number: int) -> tuple[str, int]:
        return "", number


@ray.remote
class Slow:
    """Takes so many seconds to load."""

    def __init__(self, seconds: float) -> None:
        time.sleep(seconds)


@pytest.mark.parametrize(("deaths", "said"), [(1, None), (9, "its worker died 2 times while loading it")])
def test_an_actor_that_is_killed_while_it_loads_is_replaced(tmp_path: Path, deaths: int, said: str | None) -> None:
    async def start() -> None:
        await ActorPool("frail", lambda: Frail.remote(str(tmp_path), deaths), 1, 1, print).wait_until_ready()

    if said is None:
        asyncio.run(start())
    else:
        with pytest.raises(PipelineError, match=said):
            asyncio.run(start())
    assert len(list(tmp_path.iterdir())) == 2


def test_an_actor_that_cannot_start_stops_the_run_with_its_reason() -> None:
    (error,) = ask(ActorPool("broken", Broken.remote, 1, 2, print), (1,))
    assert isinstance(error, PipelineError)
    assert "sam.architecture 'vit_x' is none of vit_b" in str(error)


def test_a_pool_that_loads_while_another_fails_ends_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    async def start() -> None:
        pools = [
            ActorPool("slow", lambda: Slow.remote(60), 1, 0, print),
            ActorPool("broken", Broken.remote, 1, 0, print),
        ]
        try:
            await asyncio.gather(*(pool.wait_until_ready() for pool in pools))
        finally:
            for pool in pools:
                pool.close()

    with pytest.raises(PipelineError, match="vit_x"):
        asyncio.run(start())
    gc.collect()
    assert caplog.text == ""


def test_a_long_wait_for_actors_is_said_until_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.actor_pool.REMINDER_SECONDS", 0.5)
    said: list[str] = []

    async def start() -> int:
        await ActorPool("slow", lambda: Slow.remote(2), 1, 0, said.append).wait_until_ready()
        heard = len(said)
        await asyncio.sleep(1.2)
        return heard

    assert asyncio.run(start()) == len(said) >= 3
    assert said[0] == "still waiting for Ray to place and load 1 slow actor"
