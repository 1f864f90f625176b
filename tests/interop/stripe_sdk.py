"""Checks that Stripe's own client library understands the provider simulator, which must accept every test key.

Usage: stripe_sdk.py BASE_URL API_KEY, such as stripe_sdk.py http://127.0.0.1:12111 sk_test_anything
"""
import sys
import uuid

import requests
import stripe

if len(sys.argv) != 3 or not sys.argv[2].startswith("sk_test_"):
    sys.exit("usage: stripe_sdk.py BASE_URL API_KEY (a key that begins with sk_test_)")
BASE_URL, API_KEY = sys.argv[1].rstrip("/"), sys.argv[2]


def connect(api_key):
    session = requests.Session()
    session.trust_env = False  # a proxy from the environment would take the requests off this machine
    client = stripe.RequestsClient(session=session, timeout=10)
    # no retries: they would hide an answer that the SDK does not like
    return stripe.StripeClient(api_key, base_addresses={"api": BASE_URL}, http_client=client, max_network_retries=0).v1


stripe.enable_telemetry = False  # it would also leave a file in the home directory
api = connect(API_KEY)
WRONG_STATE = "payment_intent_unexpected_state"


def create(key=None, **params):
    card = {"payment_method_types": ["card"], "payment_method": "pm_card_visa", "confirm": True}
    return api.payment_intents.create({"amount": 1000, "currency": "eur", **card, **params}, {"idempotency_key": key})


def expect(what, actual, wanted):
    if actual != wanted:  # `python -O` removes an assert
        raise AssertionError(f"{what}: {actual!r}, expected {wanted!r}")


def expect_intent(intent, status, received, capturable):
    actual = (intent.object, intent.status, intent.amount, intent.amount_received, intent.amount_capturable)
    expect("intent", actual, ("payment_intent", status, 1000, received, capturable))


def expect_error(error, status, code, call, *args, **params):
    try:
        call(*args, **params)
    except error as refusal:
        expect(error.__name__, (refusal.http_status, refusal.code), (status, code))
        return refusal
    raise AssertionError(f"no {error.__name__}")


def automatic():
    made = create(capture_method="automatic", metadata={"operation_id": "op-1"})
    for intent in (made, api.payment_intents.retrieve(made.id)):
        expect_intent(intent, "succeeded", 1000, 0)
        expect("details", (intent.currency, intent.metadata["operation_id"]), ("eur", "op-1"))


def capture():
    held = create(capture_method="manual")
    expect_intent(held, "requires_capture", 0, 1000)
    expect_intent(api.payment_intents.capture(held.id), "succeeded", 1000, 0)
    expect_error(stripe.InvalidRequestError, 400, WRONG_STATE, api.payment_intents.capture, held.id)


def partial_capture():
    part = api.payment_intents.capture(create(capture_method="manual").id, {"amount_to_capture": 600})
    expect_intent(part, "succeeded", 600, 0)


def cancel():
    held = create(capture_method="manual")
    expect_intent(api.payment_intents.cancel(held.id), "canceled", 0, 0)
    expect_error(stripe.InvalidRequestError, 400, WRONG_STATE, api.payment_intents.cancel, held.id)


def pages():
    made = [create() for _ in range(5)]
    page = api.payment_intents.list({"created": {"gte": made[0].created}, "limit": 2})
    expect("first page", (len(page.data), page.has_more), (2, True))
    ids = [intent.id for intent in made]
    # others may use the simulator at the same time
    expect("all pages", [intent.id for intent in page.auto_paging_iter() if intent.id in ids], ids[::-1])


def refunds():
    paid = create()
    whole = {"payment_intent": paid.id}
    part = api.refunds.create({**whole, "amount": 400, "reason": "duplicate"})
    expect("part", (part.object, part.status, part.amount, part.reason), ("refund", "succeeded", 400, "duplicate"))
    expect("origin", (part.payment_intent, part.charge), (paid.id, paid.latest_charge))
    rest = api.refunds.create(whole)
    expect("rest", (api.refunds.retrieve(rest.id).amount, rest.currency), (600, "eur"))
    expect_error(stripe.InvalidRequestError, 400, "charge_already_refunded", api.refunds.create, whole)
    listed = api.refunds.list({**whole, "limit": 1}).auto_paging_iter()
    expect("list", [refund.id for refund in listed], [rest.id, part.id])


def idempotency():
    key = str(uuid.uuid4())
    first, again = create(key), create(key)
    expect("second id", again.id, first.id)
    expect("header", again.last_response.headers.get("Idempotent-Replayed"), "true")
    expect_error(stripe.IdempotencyError, 400, None, create, key, amount=1001)


def declines():
    for card, reason in (("", "generic_decline"), ("InsufficientFunds", "insufficient_funds")):
        params = {"key": str(uuid.uuid4()), "payment_method": f"pm_card_visa_chargeDeclined{card}"}
        decline, again = (expect_error(stripe.CardError, 402, "card_declined", create, **params) for _ in range(2))
        intent = api.payment_intents.retrieve(decline.error.payment_intent.id)
        expect_intent(intent, "requires_payment_method", 0, 0)
        reasons = (decline.error.decline_code, intent.last_payment_error.decline_code)
        expect("decline codes", reasons, (reason, reason))
        expect("replayed intent", again.error.payment_intent.id, intent.id)


def unknown_ids():
    for retrieve in (api.payment_intents.retrieve, api.refunds.retrieve):
        expect_error(stripe.InvalidRequestError, 404, "resource_missing", retrieve, "unknown")


def api_keys():
    for key in ("", "sk_wrong"):
        expect_error(stripe.AuthenticationError, 401, None, connect(key).payment_intents.list)


checks = (automatic, capture, partial_capture, cancel, pages, refunds, idempotency, declines, unknown_ids, api_keys)
passed = 0
for check in checks:
    try:
        check()
        passed += 1
        print("ok", check.__name__)
    except Exception as failure:  # whatever the SDK stumbles over
        print(f"FAILED {check.__name__}: {type(failure).__name__}: {failure}", file=sys.stderr)
print(f"{passed} of {len(checks)} checks passed with stripe {stripe.VERSION}")
sys.exit(passed != len(checks))
