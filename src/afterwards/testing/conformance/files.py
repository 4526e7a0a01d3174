"""Uploaded files: stored in chunks before their task, deleted with it."""

from datetime import timedelta

import pytest

from afterwards.core.task import NewTask
from afterwards.engine import Chunk, Engine
from afterwards.testing.clock import FakeClock
from afterwards.testing.conformance.support import MICROSECOND, SOON, Conformance

DAY = timedelta(days=1)


class UploadedFiles(Conformance):
    """The content of a file exists as long as its task."""

    def chunks(self, file: str, task: NewTask, *contents: bytes, first: int = 0) -> list[Chunk]:
        return [
            Chunk(file=file, task=task.id, number=number, content=content)
            for number, content in enumerate(contents, first)
        ]

    def file(self) -> str:
        return self.task().id

    async def content(self, engine: Engine, file: str) -> list[bytes]:
        return await engine.read_chunks(file, start=0, limit=1000)

    async def test_what_was_stored_is_read_back(self, engine: Engine) -> None:
        file, content = self.file(), bytes(range(256)) * 1000
        await engine.write_chunks(self.chunks(file, self.task(), content))
        assert await self.content(engine, file) == [content]

    async def test_chunks_come_by_their_number_in_whatever_order_they_were_stored(self, engine: Engine) -> None:
        file, task = self.file(), self.task()
        await engine.write_chunks(self.chunks(file, task, b"c", b"d", first=2))
        await engine.write_chunks(self.chunks(file, task, b"a", b"b")[::-1])
        assert await self.content(engine, file) == [b"a", b"b", b"c", b"d"]

    async def test_a_file_is_read_piece_by_piece(self, engine: Engine) -> None:
        file = self.file()
        await engine.write_chunks(self.chunks(file, self.task(), *(b"%d" % number for number in range(12))))
        pieces = [await engine.read_chunks(file, start=start, limit=5) for start in (0, 5, 10, 15)]
        assert pieces == [[b"0", b"1", b"2", b"3", b"4"], [b"5", b"6", b"7", b"8", b"9"], [b"10", b"11"], []]

    async def test_an_empty_file_is_a_file(self, engine: Engine) -> None:
        file = self.file()
        await engine.write_chunks(self.chunks(file, self.task(), b""))
        assert await self.content(engine, file) == [b""]

    async def test_a_file_that_was_never_stored_has_no_chunks(self, engine: Engine) -> None:
        await engine.write_chunks(self.chunks(self.file(), self.task(), b"another"))
        await engine.write_chunks([])
        assert await self.content(engine, self.file()) == []

    async def test_several_files_of_several_tasks_are_kept_apart(self, engine: Engine) -> None:
        first, second, third = self.file(), self.file(), self.file()
        one, two = self.task(), self.task()
        await engine.write_chunks(self.chunks(first, one, b"1", b"2") + self.chunks(second, one, b"3"))
        await engine.write_chunks(self.chunks(third, two, b"4"))
        found = [await self.content(engine, file) for file in (first, second, third)]
        assert found == [[b"1", b"2"], [b"3"], [b"4"]]

    async def test_what_is_stored_again_takes_the_place_of_what_was(self, engine: Engine) -> None:
        file, task = self.file(), self.task()
        await engine.write_chunks(self.chunks(file, task, b"a", b"b"))
        await engine.write_chunks(self.chunks(file, task, b"A"))
        assert await self.content(engine, file) == [b"A", b"b"]

    async def test_a_file_stays_as_long_as_its_task(self, engine: Engine, clock: FakeClock) -> None:
        file, new = self.file(), self.task(retention=SOON)
        await engine.write_chunks(self.chunks(file, new, b"a", b"b"))
        await engine.enqueue([new])
        for _ in range(3):
            clock.advance(DAY)
            await engine.prune(limit=10)
            assert await self.content(engine, file) == [b"a", b"b"]
        [task] = await self.claim(engine)
        await self.succeed(engine, task)
        clock.advance(SOON - MICROSECOND)
        await engine.prune(limit=10)
        assert await self.content(engine, file) == [b"a", b"b"]

    async def test_a_file_is_deleted_with_its_task(self, engine: Engine, clock: FakeClock) -> None:
        first, second, other = self.file(), self.file(), self.file()
        new, stays = self.task(retention=SOON), self.task("other")
        await engine.write_chunks(self.chunks(first, new, b"a", b"b") + self.chunks(second, new, b"c"))
        await engine.write_chunks(self.chunks(other, stays, b"d"))
        await engine.enqueue([new, stays])
        await self.succeed(engine, *await self.claim(engine))
        clock.advance(SOON)
        assert await engine.prune(limit=10) == 1
        assert [await self.content(engine, file) for file in (first, second, other)] == [[], [], [b"d"]]

    async def test_a_file_is_deleted_with_a_task_that_was_stored_days_ago(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        file, new = self.file(), self.task(retention=SOON)
        await engine.write_chunks(self.chunks(file, new, b"a"))
        await engine.enqueue([new])
        clock.advance(DAY * 2)
        await engine.prune(limit=10)
        await self.succeed(engine, *await self.claim(engine))
        clock.advance(SOON)
        assert await engine.prune(limit=10) == 1
        assert await self.content(engine, file) == []

    @pytest.mark.parametrize("count", [1, 150])
    async def test_files_whose_task_was_never_stored_are_deleted_after_a_day(
        self, engine: Engine, clock: FakeClock, count: int
    ) -> None:
        files = [self.file() for _ in range(count)]
        await engine.write_chunks([chunk for file in files for chunk in self.chunks(file, self.task(), b"a", b"b")])
        clock.advance(DAY - MICROSECOND)
        await engine.prune(limit=10)
        assert await self.content(engine, files[-1]) == [b"a", b"b"]
        clock.advance(MICROSECOND)
        assert await engine.prune(limit=10) == 0
        assert [await self.content(engine, file) for file in files] == [[]] * count

    async def test_files_that_are_needed_hide_none_that_is_not(self, engine: Engine, clock: FakeClock) -> None:
        needed, forgotten, new = [self.file() for _ in range(120)], self.file(), self.task()
        await engine.write_chunks([chunk for file in needed for chunk in self.chunks(file, new, b"a")])
        await engine.enqueue([new])
        clock.advance(MICROSECOND)
        await engine.write_chunks(self.chunks(forgotten, self.task(), b"b"))
        clock.advance(DAY)
        await engine.prune(limit=1)
        assert await self.content(engine, forgotten) == []
        assert [await self.content(engine, file) for file in needed] == [[b"a"]] * 120

    async def test_files_of_refused_tasks_are_deleted_at_once(self, engine: Engine, clock: FakeClock) -> None:
        refused, stored, other = self.task(), self.task(), self.task()
        files = [self.file() for _ in range(4)]
        owners = [refused, refused, stored, other]
        for file, new in zip(files, owners, strict=True):
            await engine.write_chunks(self.chunks(file, new, *[b"a"] * 100))
        await engine.enqueue([stored])
        await engine.delete_files([refused.id, stored.id])
        assert [len(await self.content(engine, file)) for file in files] == [0, 0, 100, 100]
        clock.advance(DAY * 2)
        await engine.prune(limit=1)
        assert [len(await self.content(engine, file)) for file in files] == [0, 0, 100, 0]

    async def test_a_large_file_is_deleted_whole(self, engine: Engine, clock: FakeClock) -> None:
        file = self.file()
        await engine.write_chunks(self.chunks(file, self.task(), *[b"a"] * 200))
        clock.advance(DAY)
        await engine.prune(limit=1)
        assert await self.content(engine, file) == []

    async def test_a_repeated_enqueue_leaves_its_files(self, engine: Engine, clock: FakeClock) -> None:
        file, new = self.file(), self.task()
        for _ in range(2):
            await engine.write_chunks(self.chunks(file, new, b"a", b"b"))
            await engine.enqueue([new])
        clock.advance(DAY)
        await engine.prune(limit=10)
        assert await self.content(engine, file) == [b"a", b"b"]

    async def test_a_repeated_enqueue_with_another_file_has_both_deleted_with_the_task(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        first, second, new = self.file(), self.file(), self.task(retention=SOON)
        for file in (first, second):
            await engine.write_chunks(self.chunks(file, new, b"a"))
            await engine.enqueue([new])
        await self.succeed(engine, *await self.claim(engine))
        clock.advance(SOON)
        await engine.prune(limit=10)
        assert [await self.content(engine, file) for file in (first, second)] == [[], []]
