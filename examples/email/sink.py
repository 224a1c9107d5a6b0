"""An SMTP server that delivers nothing: it prints what it takes, one line each.

It refuses recipients at ``invalid.example`` for good, and those at ``busy.example`` the first time.
"""

import asyncio
import os

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session


class Sink:
    def __init__(self) -> None:
        self._asked: set[str] = set()

    async def handle_RCPT(  # noqa: N802 - the name that aiosmtpd looks for
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.endswith("@invalid.example"):
            return "550 there is nobody of that name"
        if address.endswith("@busy.example") and address not in self._asked:
            self._asked.add(address)
            return "451 busy, try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        print(f"mail for {', '.join(envelope.rcpt_tos)}", flush=True)
        return "250 taken"


if __name__ == "__main__":
    port = int(os.environ.get("SMTP_PORT", "8025"))
    controller = Controller(Sink(), hostname="localhost", port=port)
    controller.start()
    print(f"listening on {port}", flush=True)
    asyncio.new_event_loop().run_forever()
