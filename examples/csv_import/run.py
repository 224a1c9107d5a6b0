"""python run.py FILE.csv DATABASE: import the file, and print the report."""

import sys

from tasks import import_file

if __name__ == "__main__":
    path, database = sys.argv[1:]
    print(import_file.delay(path, database).get(timeout=60))
