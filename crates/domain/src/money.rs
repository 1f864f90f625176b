//! Money: integers in a currency's minor unit. There is no float in this program.

use iso_currency::Currency as Iso;

/// The largest amount of one payment, in minor units. Stripe takes at most eight digits.
pub const MAX_AMOUNT: i64 = 99_999_999;

/// Currencies whose minor unit at the provider is not ISO 4217's (Stripe, "Zero-decimal and special-case
/// currencies"): an amount would be off by a factor of 100 on one of the two sides.
const MINOR_UNIT_DIFFERS: [Iso; 3] = [Iso::ISK, Iso::MGA, Iso::UGX];

/// A currency of ISO 4217 that a payment can be made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Currency {
    iso: Iso,
    exponent: u16,
}

/// The code is no currency that a payment can be made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a supported currency; send an upper-case ISO 4217 code such as EUR")]
pub struct UnsupportedCurrency;

impl Currency {
    /// Reads an upper-case ISO 4217 code.
    ///
    /// # Errors
    /// Codes that are unknown, no longer in use, not money to pay with (funds, metals, testing), or counted in
    /// another minor unit at the provider.
    pub fn parse(code: &str) -> Result<Self, UnsupportedCurrency> {
        let iso = Iso::from_code(code).filter(|iso| iso.code() == code).ok_or(UnsupportedCurrency)?;
        let usable = !iso.is_fund()
            && !iso.is_special()
            && iso.is_superseded().is_none()
            && !MINOR_UNIT_DIFFERS.contains(&iso);
        match iso.exponent() {
            Some(exponent @ 0..=3) if usable => Ok(Self { iso, exponent }),
            _ => Err(UnsupportedCurrency),
        }
    }

    /// The ISO 4217 code, upper case.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.iso.code()
    }

    /// How many digits of an amount are behind the decimal point: 0 to 3.
    #[must_use]
    pub const fn exponent(self) -> u16 {
        self.exponent
    }
}

/// An amount in minor units, 1 to [`MAX_AMOUNT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(i64);

/// Why an amount cannot be charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Below 1 or above [`MAX_AMOUNT`].
    #[error("must be from 1 to {MAX_AMOUNT} minor units")]
    OutOfRange,
    /// Card networks settle three-decimal currencies in steps of ten minor units.
    #[error("must be a multiple of 10 in a currency with three decimals")]
    NotAMultipleOfTen,
}

impl Amount {
    /// Checks the range.
    ///
    /// # Errors
    /// [`AmountError::OutOfRange`].
    pub fn new(minor_units: i64) -> Result<Self, AmountError> {
        if (1..=MAX_AMOUNT).contains(&minor_units) {
            Ok(Self(minor_units))
        } else {
            Err(AmountError::OutOfRange)
        }
    }

    /// The number of minor units.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

/// An amount of a currency that the provider can charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Money {
    amount: Amount,
    currency: Currency,
}

impl Money {
    /// Puts the two together.
    ///
    /// # Errors
    /// [`AmountError::NotAMultipleOfTen`] for three-decimal currencies (Stripe, "Three-decimal currencies").
    pub fn new(amount: Amount, currency: Currency) -> Result<Self, AmountError> {
        if currency.exponent == 3 && amount.0 % 10 != 0 {
            return Err(AmountError::NotAMultipleOfTen);
        }
        Ok(Self { amount, currency })
    }

    /// How much.
    #[must_use]
    pub const fn amount(self) -> Amount {
        self.amount
    }

    /// Of what.
    #[must_use]
    pub const fn currency(self) -> Currency {
        self.currency
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn everyday_currencies_have_their_iso_exponent() {
        for (code, exponent) in
            [("EUR", 2), ("USD", 2), ("JPY", 0), ("KRW", 0), ("KWD", 3), ("BHD", 3), ("HUF", 2)]
        {
            assert_eq!(Currency::parse(code).unwrap().exponent(), exponent, "{code}");
        }
    }

    #[test]
    fn what_nobody_can_pay_with_is_refused() {
        // unknown, lower case, other minor unit at the provider, metal, testing, none, fund, withdrawn
        for code in
            ["", "EU", "EURO", "eur", "Eur", "ISK", "UGX", "MGA", "XAU", "XTS", "XXX", "CHW", "CLF", "DEM"]
        {
            assert_eq!(Currency::parse(code), Err(UnsupportedCurrency), "{code}");
        }
    }

    #[test]
    fn amounts_have_bounds() {
        for wrong in [i64::MIN, -1, 0, MAX_AMOUNT + 1, i64::MAX] {
            assert_eq!(Amount::new(wrong), Err(AmountError::OutOfRange));
        }
        assert_eq!(Amount::new(1).unwrap().get(), 1);
        assert_eq!(Amount::new(MAX_AMOUNT).unwrap().get(), MAX_AMOUNT);
    }

    proptest! {
        #[test]
        fn three_decimals_go_in_steps_of_ten(minor in 1..=MAX_AMOUNT) {
            let amount = Amount::new(minor).unwrap();
            let dinar = Money::new(amount, Currency::parse("KWD").unwrap());
            prop_assert_eq!(dinar.is_ok(), minor % 10 == 0);
            prop_assert!(Money::new(amount, Currency::parse("EUR").unwrap()).is_ok());
        }

        #[test]
        fn any_code_is_answered(code in ".{0,8}") {
            if let Ok(currency) = Currency::parse(&code) {
                prop_assert_eq!(currency.code(), code);
                prop_assert!(currency.exponent() <= 3);
            }
        }
    }
}
