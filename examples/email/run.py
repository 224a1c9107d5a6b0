"""python run.py NAME RECIPIENT...: start the mailing, if it was not started before; wait for it."""

import sys

from tasks import mailing

if __name__ == "__main__":
    name, *recipients = sys.argv[1:]
    print(mailing(name, recipients).apply_async(idempotency_key=name, name=name).get(timeout=300))
