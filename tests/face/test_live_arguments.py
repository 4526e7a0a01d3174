"""What cannot outlive its request is refused at `add_task`, so that the handler sees it, and nothing is stored."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request, UploadFile
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from afterwards import Afterwards, BackgroundTasks, UnstorableArgument, task
from face.serving import records, serving

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)


@task
async def report(number: int, thing: Any) -> None: ...


def session() -> Iterator[Session]:
    engine = create_engine("sqlite://")
    with Session(engine) as session:
        yield session
    engine.dispose()


async def pages() -> Any:
    yield 1


LIVE: dict[str, Callable[[Request, Session, UploadFile], Any]] = {
    "found User: pass its id and load it in the task": lambda request, session, file: User(id=1),
    "found Session: it is connected to this process": lambda request, session, file: session,
    "found Request: a request is over when the task runs": lambda request, session, file: request,
    "found SpooledTemporaryFile: an open file is closed when the task runs": lambda request, session, file: file.file,
    "found UploadFile: an uploaded file is stored only for": lambda request, session, file: file,
    "found generator: it can be read only once": lambda request, session, file: (n for n in range(3)),
    "found async_generator: it can be read only once": lambda request, session, file: pages(),
}


@pytest.mark.parametrize("refusal", LIVE)
async def test_it_is_refused_at_add_task(url: str, refusal: str) -> None:
    app, errors = FastAPI(), []
    tasks = Afterwards(app, url)

    @app.post("/")
    async def handler(
        request: Request, file: UploadFile, tasks: BackgroundTasks, session: Session = Depends(session)
    ) -> None:
        with pytest.raises(UnstorableArgument) as caught:
            tasks.add_task(report, 1, LIVE[refusal](request, session, file))
        errors.append(str(caught.value))

    async with serving(app) as http:
        assert (await http.post("/", files={"file": b"a"})).status_code == 200
        assert await records(tasks) == []
    assert errors[0].startswith(f'task "report", parameter "thing": {refusal}')
