"""An uploaded file as an argument: the task can read it after the response, even after a restart.

    uvicorn upload:app
    printf 'sku,price\ncup,100\nplate,250\n' > prices.csv
    curl -F file=@prices.csv localhost:8000/prices
    head -c 2000000 /dev/zero | curl -F file=@- localhost:8000/prices

`prices.txt` shows the content. The second file is refused because it is too large.
"""

import csv
import io
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, File, HTTPException, UploadFile

from afterwards import Afterwards, BackgroundTasks, TooLarge, task

app = FastAPI()
tasks = Afterwards(app, max_file_size=1_000_000)  # bytes of one file; default: 32 MiB


def write(line: str) -> None:
    with Path("prices.txt").open("a") as prices:
        prices.write(f"{line}\n")


@task(retries=2)  # each attempt gets the file open at its beginning
def import_prices(file: UploadFile) -> int:
    rows = list(csv.DictReader(io.TextIOWrapper(file.file, "utf-8")))
    for row in rows:
        write(f"{file.filename}: {row['sku']} costs {row['price']}")
    return len(rows)


@task
async def measure(files: list[UploadFile]) -> None:
    for file in files:
        write(f"{file.filename}: {len(await file.read())} bytes of {file.content_type}")


@app.post("/prices", status_code=202)
async def upload_prices(file: UploadFile, background_tasks: BackgroundTasks):
    try:
        background_tasks.add_task(import_prices, file)
    except TooLarge as error:
        raise HTTPException(413, f"give a file of at most {error.limit} bytes") from error
    return {"file": file.filename}


@app.post("/pictures", status_code=202)
async def upload_pictures(files: Annotated[list[UploadFile], File()], background_tasks: BackgroundTasks):
    background_tasks.add_task(measure, files)
    return {"files": len(files)}
