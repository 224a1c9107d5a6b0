"""python run.py PICTURES OUT: a thumbnail of each picture, and a contact sheet."""

import sys
from pathlib import Path

from tasks import sheet_of

if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    done = sheet_of(source, target).delay().get(timeout=300)
    print(f"{done['pictures']} thumbnails, {done['missing']} files that are no pictures")
