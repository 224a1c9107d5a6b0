"""A mailing through SMTP: tried again while that helps, given up when it does not."""

import os
import smtplib
from collections.abc import Iterable
from email.message import EmailMessage
from typing import Any

from taskharbor import Exponential, Reject, TaskHarbor, chord, group
from taskharbor.flow.builder import Chord

app = TaskHarbor(os.environ.get("TASKHARBOR_URL", "sqlite:///jobs.db"), name="email")

PAUSE_SECONDS = float(os.environ.get("PAUSE_SECONDS", "2"))


@app.task(
    queue="mail",
    max_attempts=5,
    backoff=Exponential(base=PAUSE_SECONDS, cap=600),
    timeout=30,
    retry_on=(OSError, smtplib.SMTPException),
)
def send(to: str, subject: str, text: str) -> str:
    """Returns the recipient. A refusal for good (5xx) is rejected: the job is dead at once."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "shop@example.com", to, subject
    mail.set_content(text)
    try:
        with smtplib.SMTP(
            "localhost", int(os.environ.get("SMTP_PORT", "8025")), timeout=10
        ) as smtp:
            smtp.send_message(mail)
    except smtplib.SMTPRecipientsRefused as error:
        ((code, reason),) = error.recipients.values()
        if code >= 500:
            raise Reject(f"{to}: {code} {reason.decode(errors='replace')}") from error
        raise
    return to


@app.task(queue="mail")
def summary(sent: list[Any], name: str) -> str:
    refused = sum(isinstance(each, Exception) for each in sent)
    return f"{name}: {len(sent) - refused} sent, {refused} refused"


def mailing(name: str, recipients: Iterable[str]) -> Chord[str]:
    """The flow: one job for each recipient, then a summary."""
    mails = group(send.s(to, f"News: {name}", f"This is {name}.") for to in recipients)
    return chord(mails.allow_failure(), summary.s(name))
