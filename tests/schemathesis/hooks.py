"""What a JSON schema cannot say, for the cases that are meant to be right. The cases that are meant to be wrong are sent as
they were made."""

import itertools
import os
import unicodedata
import uuid

import schemathesis

# Amounts of these come in multiples of ten, because cards settle no more than two decimals.
THREE_DECIMALS = {"BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"}
# Letters and symbols that nobody sees.
INVISIBLE = set("\u115f\u1160\u3164\uffa0\u2800")

# Payments that were made for this run: each is captured, canceled or refunded once.
AUTHORIZED = os.environ.get("AUTHORIZED_PAYMENTS", "").split()
CAPTURED = os.environ.get("CAPTURED_PAYMENTS", "").split()

# Every fourth request that moves money is answered at once, so that 202 is looked at as well.
POSTS = itertools.count(1)


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if case.headers and "Idempotency-Key" in case.headers:
        # a key belongs to one request: another request with it is refused, as the document says
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
        if next(POSTS) % 4 == 0:
            case.headers["Prefer"] = "respond-async"
    if case.query:
        # cursors are given out, not made up
        case.query.pop("cursor", None)
        if "reference" in case.query:
            case.query["reference"] = visible(case.query["reference"])
    if case.operation.method.lower() == "post" and isinstance(case.body, dict):
        case.body = {name: clean(value) for name, value in case.body.items()}
        path = case.operation.path
        if path == "/v1/payments":
            complete_payment(case.body)
        elif path.endswith("/refunds"):
            use_one_of(CAPTURED, case)
        else:
            use_one_of(AUTHORIZED, case)


def complete_payment(body):
    # a reference belongs to one payment
    body["reference"] = f"{body['reference'][:60]} {uuid.uuid4()}"
    if isinstance(body.get("customer"), dict) and body["customer"].get("name") is not None:
        # a word of a name has one script, which a pattern cannot say
        body["customer"]["name"] = visible("".join(c for c in body["customer"]["name"] if c.isascii())) or "x"
    if body["currency"] in THREE_DECIMALS:
        body["amount"] = max(10, body["amount"] // 10 * 10)
    if not body["payment_method"].startswith("pm_card_"):
        # tokens are given out by the provider
        body["payment_method"] = "pm_card_visa"
    if body.get("return_url") is not None and not body["return_url"].startswith("https://shop.example/"):
        # any absolute URI fits the schema; only https is taken
        body["return_url"] = "https://shop.example/back"


def use_one_of(payments, case):
    if payments:
        case.path_parameters["id"] = payments.pop()


def clean(value):
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, float) and value.is_integer():
        # 10.0 is an integer to JSON Schema; an amount is written as one
        return int(value)
    if isinstance(value, dict):
        return {visible(name): clean(inner) for name, inner in value.items()}
    return value


def visible(text):
    """Without what Unicode calls invisible or unassigned: a pattern cannot say it. What was all of that is a letter."""
    shown = "".join(c for c in text if unicodedata.category(c)[0] in "LNPSZ" and c not in INVISIBLE)
    return shown if shown.strip() or not text else "x"
