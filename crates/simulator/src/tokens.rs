//! Stripe's test payment methods: which token makes a charge succeed, fail or wait.
//!
//! Source: Stripe documentation, "Testing". Tokens that Stripe does not have are marked as the simulator's own.

use std::borrow::Cow;

use crate::objects::Decline;

/// What happens when a payment method is charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Authorised at once; its refunds behave as said.
    Succeeds(RefundBehaviour),
    /// Refused by the issuer.
    Declined(Decline),
    /// The customer has to authenticate first.
    NeedsAction,
    /// Stays `processing` until somebody completes it.
    Processing,
}

/// What happens to a refund of the charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefundBehaviour {
    Succeeds,
    /// Stays `pending` until somebody completes it.
    Pending,
    /// Is answered `succeeded` and turns to `failed` right after.
    FailsLater,
}

/// Card tokens that are simply charged.
const GOOD_CARDS: [&str; 23] = [
    "pm_card_visa",
    "pm_card_visa_debit",
    "pm_card_mastercard",
    "pm_card_mastercard_debit",
    "pm_card_mastercard_prepaid",
    "pm_card_amex",
    "pm_card_discover",
    "pm_card_diners",
    "pm_card_jcb",
    "pm_card_unionpay",
    "pm_card_us",
    "pm_card_gb",
    "pm_card_de",
    "pm_card_fr",
    "pm_card_es",
    "pm_card_it",
    "pm_card_nl",
    "pm_card_ch",
    "pm_card_ca",
    "pm_card_br",
    "pm_card_au",
    "pm_card_jp",
    "pm_card_bypassPending",
];

/// What follows `pm_card_chargeDeclined` or `pm_card_visa_chargeDeclined`: code, decline code, message.
const DECLINES: [(&str, &str, &str, &str); 9] = [
    ("", "card_declined", "generic_decline", "Your card was declined."),
    ("InsufficientFunds", "card_declined", "insufficient_funds", "Your card has insufficient funds."),
    ("LostCard", "card_declined", "lost_card", "Your card was declined."),
    ("StolenCard", "card_declined", "stolen_card", "Your card was declined."),
    ("Fraudulent", "card_declined", "fraudulent", "Your card was declined."),
    (
        "VelocityLimitExceeded",
        "card_declined",
        "card_velocity_exceeded",
        "Your card was declined for making repeated attempts too frequently or exceeding its amount limit.",
    ),
    ("ExpiredCard", "expired_card", "expired_card", "Your card has expired."),
    ("IncorrectCvc", "incorrect_cvc", "incorrect_cvc", "Your card's security code is incorrect."),
    (
        "ProcessingError",
        "processing_error",
        "processing_error",
        "An error occurred while processing your card. Try again in a little bit.",
    ),
];

/// Looks a token up; `None` is a payment method that does not exist.
pub(crate) fn behaviour(token: &str) -> Option<Behaviour> {
    if GOOD_CARDS.contains(&token) {
        return Some(Behaviour::Succeeds(RefundBehaviour::Succeeds));
    }
    if let Some(reason) = token
        .strip_prefix("pm_card_visa_chargeDeclined")
        .or_else(|| token.strip_prefix("pm_card_chargeDeclined"))
    {
        return decline(reason).map(Behaviour::Declined);
    }
    match token {
        "pm_card_chargeCustomerFail" | "pm_card_radarBlock" => decline("").map(Behaviour::Declined),
        "pm_card_authenticationRequired"
        | "pm_card_threeDSecureRequired"
        | "pm_card_threeDSecure2Required"
        | "pm_card_authenticationRequiredChargeDeclinedInsufficientFunds" => Some(Behaviour::NeedsAction),
        "pm_card_pendingRefund" => Some(Behaviour::Succeeds(RefundBehaviour::Pending)),
        "pm_card_refundFail" => Some(Behaviour::Succeeds(RefundBehaviour::FailsLater)),
        // The simulator's own: at Stripe only bank debits stay in this state.
        "pm_card_processing" => Some(Behaviour::Processing),
        _ => None,
    }
}

/// What the issuer says once the customer did their part or the network answered.
pub(crate) fn decline_after_action(token: &str) -> Option<Decline> {
    token.strip_prefix("pm_card_authenticationRequiredChargeDeclined").and_then(decline)
}

/// What a charge becomes whose customer failed to authenticate.
pub(crate) fn authentication_failed() -> Decline {
    Decline {
        code: "payment_intent_authentication_failure".into(),
        decline_code: None,
        message:
            "The provided PaymentMethod has failed authentication. You can provide payment_method_data or a \
                  new PaymentMethod to attempt to fulfill this PaymentIntent again."
                .into(),
    }
}

/// The refusal without a particular reason.
pub(crate) fn generic_decline() -> Decline {
    Decline {
        code: "card_declined".into(),
        decline_code: Some("generic_decline".into()),
        message: "Your card was declined.".into(),
    }
}

fn decline(reason: &str) -> Option<Decline> {
    DECLINES.iter().find(|(name, ..)| *name == reason).map(|&(_, code, decline_code, message)| Decline {
        code: Cow::Borrowed(code),
        decline_code: Some(Cow::Borrowed(decline_code)),
        message: Cow::Borrowed(message),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_a_decline_mean_the_same() {
        assert_eq!(
            behaviour("pm_card_visa_chargeDeclinedInsufficientFunds"),
            behaviour("pm_card_chargeDeclinedInsufficientFunds")
        );
        let Some(Behaviour::Declined(decline)) = behaviour("pm_card_chargeDeclinedExpiredCard") else {
            panic!("an expired card is declined");
        };
        assert_eq!(decline.code, "expired_card");
    }

    #[test]
    fn an_unknown_token_or_decline_does_not_exist() {
        assert_eq!(behaviour("pm_1NotATestToken"), None);
        assert_eq!(behaviour("pm_card_chargeDeclinedByTheMoon"), None);
    }
}
