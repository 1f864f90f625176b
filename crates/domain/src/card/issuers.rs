//! Which first digits belong to a card, and how long such a card's number is.
//!
//! Sources: ISO/IEC 7812-1 (13 to 19 digits here; shorter numbers are no cards that a shop takes); the networks' published
//! BIN ranges as collected in Wikipedia, "Payment card number", section "Issuer identification number", and in the data of
//! `braintree/credit-card-type` (`src/lib/card-types.ts`). Where the two differ the wider range is taken, but for Maestro:
//! its "everything with 6" and its 12 digits would refuse numbers that nobody ever issued.
//!
//! These lie within ranges of others and need no line: Elo, Verve, Dankort, Switch, Solo, Laser, Bankcard, Meeza and mada in
//! Visa, Maestro and Discover; Hipercard, UkrCard and Forbrugsforeningen in RuPay's 60; LankaPay in JCB.
//!
//! Left out on purpose: UATP (1, 15 digits) and GPN (1946, 16 digits). Only airlines take the one and only Indonesia the
//! other, and a tenth of all order numbers of 15 digits that begin with 1, or of the times around 2031 in microseconds,
//! would be refused for them.

/// The fewest digits of a card number.
pub const MIN_DIGITS: usize = 13;
/// The most (ISO/IEC 7812-1, section 4.2).
pub const MAX_DIGITS: usize = 19;
/// So many digits of a number choose its line.
pub(super) const PREFIX_DIGITS: usize = 6;

/// A range of numbers that one network issues.
#[derive(Debug, Clone, Copy)]
pub struct Issuer {
    /// The network.
    pub network: &'static str,
    /// The first six digits, from the least ...
    pub from: u32,
    /// ... to the greatest.
    pub to: u32,
    /// How many digits such a number has.
    pub lengths: &'static [usize],
}

const fn issuer(network: &'static str, from: u32, to: u32, lengths: &'static [usize]) -> Issuer {
    Issuer { network, from, to, lengths }
}

/// Every range.
pub const ISSUERS: [Issuer; 33] = [
    issuer("Mir", 220_000, 220_499, &[16, 17, 18, 19]),
    issuer("Borica", 220_500, 220_599, &[16]),
    issuer("Mastercard", 222_100, 272_099, &[16]),
    issuer("Diners Club", 300_000, 305_999, &[14, 15, 16, 17, 18, 19]),
    issuer("Diners Club", 309_500, 309_599, &[14, 15, 16, 17, 18, 19]),
    issuer("China T-Union", 310_000, 319_999, &[19]),
    issuer("American Express", 340_000, 349_999, &[15]),
    issuer("JCB", 352_800, 358_999, &[16, 17, 18, 19]),
    issuer("Diners Club", 360_000, 369_999, &[14, 15, 16, 17, 18, 19]),
    issuer("American Express", 370_000, 379_999, &[15]),
    issuer("Diners Club", 380_000, 399_999, &[14, 15, 16, 17, 18, 19]),
    issuer("Visa", 400_000, 499_999, &[13, 16, 19]),
    issuer("Maestro", 500_000, 509_999, &[13, 14, 15, 16, 17, 18, 19]),
    issuer("Mastercard", 510_000, 559_999, &[16]),
    issuer("Maestro", 560_000, 599_999, &[13, 14, 15, 16, 17, 18, 19]),
    issuer("RuPay", 600_000, 609_999, &[16]),
    issuer("Discover", 601_100, 601_199, &[16, 17, 18, 19]),
    issuer("UkrCard", 604_001, 604_200, &[16, 17, 18, 19]),
    issuer("UnionPay", 620_000, 629_999, &[16, 17, 18, 19]),
    issuer("Maestro", 630_000, 639_999, &[13, 14, 15, 16, 17, 18, 19]),
    issuer("Discover", 644_000, 649_999, &[16, 17, 18, 19]),
    issuer("Discover, RuPay, Troy", 650_000, 659_999, &[16, 17, 18, 19]),
    issuer("Maestro", 670_000, 679_999, &[13, 14, 15, 16, 17, 18, 19]),
    issuer("UnionPay", 810_000, 819_999, &[16, 17, 18, 19]),
    issuer("RuPay", 820_000, 829_999, &[16]),
    issuer("UzCard", 860_000, 860_099, &[16]),
    issuer("ArCa", 905_100, 905_199, &[16]),
    issuer("Belkart", 911_200, 911_299, &[16]),
    issuer("mada", 968_200, 968_299, &[16]),
    issuer("Napas", 970_400, 970_499, &[16, 19]),
    issuer("Troy", 979_200, 979_299, &[16]),
    issuer("Prostir", 980_400, 980_499, &[16]),
    issuer("Humo", 986_000, 986_099, &[16]),
];

/// Whether numbers that begin with these six digits can have so many.
pub(super) fn issues(prefix: u32, digits: usize) -> bool {
    ISSUERS
        .iter()
        .any(|issuer| (issuer.from..=issuer.to).contains(&prefix) && issuer.lengths.contains(&digits))
}
