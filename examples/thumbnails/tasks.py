"""Thumbnails of all pictures in a directory, and a contact sheet of them."""

import os
from math import ceil
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from taskharbor import TaskHarbor, chord, group
from taskharbor.flow.builder import Chord

app = TaskHarbor(os.environ.get("TASKHARBOR_URL", "sqlite:///jobs.db"), name="thumbnails")

SIZE = 160
COLUMNS = 4


@app.task(max_attempts=2, timeout=60)
def thumbnail(picture: str, directory: str) -> str:
    """The path of a smaller copy, written under another name first: readers see all or nothing."""
    target = Path(directory) / f"{Path(picture).name}.thumbnail.png"
    with Image.open(picture) as image:
        image.thumbnail((SIZE, SIZE))
        image.convert("RGB").save(target.with_suffix(".part"), "PNG")
    target.with_suffix(".part").replace(target)
    return str(target)


@app.task
def contact_sheet(thumbnails: list[Any], path: str) -> dict[str, int]:
    """All thumbnails on one sheet, an empty frame for each that could not be made."""
    rows = max(1, ceil(len(thumbnails) / COLUMNS))
    sheet = Image.new("RGB", (COLUMNS * SIZE, rows * SIZE), "white")
    missing = 0
    for place, made in enumerate(thumbnails):
        corner = (place % COLUMNS * SIZE, place // COLUMNS * SIZE)
        if isinstance(made, Exception):
            missing += 1
            box = (*corner, corner[0] + SIZE - 1, corner[1] + SIZE - 1)
            ImageDraw.Draw(sheet).rectangle(box, outline="red", width=3)
        else:
            with Image.open(made) as image:
                sheet.paste(image, corner)
    sheet.save(path)
    return {"pictures": len(thumbnails) - missing, "missing": missing}


def sheet_of(source: Path, target: Path) -> Chord[dict[str, int]]:
    """The flow for the files in ``source``, which writes to ``target``."""
    target.mkdir(parents=True, exist_ok=True)
    pictures = sorted(str(path.resolve()) for path in source.iterdir() if path.is_file())
    small = group(thumbnail.s(picture, str(target.resolve())) for picture in pictures)
    body = contact_sheet.s(str(target.resolve() / "sheet.png"))
    return chord(small.allow_failure(), body)
