//! Text that the provider takes or prints, by its rules.

use super::{CHARACTERS, Length, TextError, forbid};

/// Before the provider's tokens of payment methods.
const PREFIX: &str = "pm_";

/// Stripe, "Statement descriptors": 5 to 22 characters with the account's prefix and `* ` before it, Latin characters only,
/// at least one letter, none of `< > \ ' " *`.
pub(super) fn statement_descriptor(text: &str, length: Length) -> Result<String, TextError> {
    let characters = text.chars().count();
    if characters > length.max {
        length.check(characters, CHARACTERS)?;
    }
    let forbidden = |c: char| !matches!(c, ' '..='~') || "<>\\'\"*".contains(c);
    forbid(text, forbidden, "a statement has ASCII only, and none of < > \\ ' \" *")?;
    length.check(characters, CHARACTERS)?;
    if !text.bytes().any(|b| b.is_ascii_alphabetic()) {
        return Err(TextError::Unsupported("must have at least one letter"));
    }
    Ok(text.to_owned())
}

pub(super) fn payment_method(text: &str, length: Length) -> Result<String, TextError> {
    if !text.starts_with(PREFIX) {
        return Err(TextError::Unsupported(
            "must be a token of the provider, such as pm_card_visa; never a card number",
        ));
    }
    length.check(text.chars().count(), CHARACTERS)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    forbid(text, |c| !allowed(c), "a token has letters, digits and underscores")?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use crate::text::{PaymentMethod, StatementDescriptor};

    #[test]
    fn a_statement_has_what_the_provider_prints() {
        for good in ["SHOP 42", "AB", "TEA & CO", "A1-B2.C3/D4,E5:F"] {
            assert!(StatementDescriptor::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["", "A", "42", "SHOP*42", "SHÖP", "ABCDEFGHIJKLMNOPQRS", "a\nb", "a\u{7F}", "<b>", "a'b", "  "]
        {
            assert!(StatementDescriptor::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_is_the_providers() {
        for good in ["pm_card_visa", "pm_1", &format!("pm_{}", "a".repeat(100))] {
            assert!(PaymentMethod::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "pm",
            "pm_",
            "card_visa",
            "pm_a-b",
            "pm_é",
            "4242424242424242",
            &format!("pm_{}", "a".repeat(101)),
        ] {
            assert!(PaymentMethod::parse(bad).is_err(), "{bad}");
        }
    }
}
