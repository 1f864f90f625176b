//! Names of this world. `names.tsv` has them, their languages, and where they are found.

use domain::text::{MerchantName, PersonName};
use icu_normalizer::ComposingNormalizer;
use std::collections::BTreeSet;

fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = include_str!("names.tsv").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| {
        let mut columns = line.split('\t');
        let (name, language, source) = (columns.next(), columns.next(), columns.next());
        assert!(columns.next().is_none() && source.is_some_and(|source| !source.is_empty()), "{line}");
        (name.unwrap(), language.unwrap())
    })
}

#[test]
fn names_of_many_languages_are_welcome() {
    for (name, language) in all() {
        let nfc = ComposingNormalizer::new_nfc().normalize(name);
        let person = PersonName::parse(name).map(|name| name.as_str().to_owned());
        assert_eq!(person, Ok(nfc.clone().into_owned()), "{name} ({language})");
        assert_eq!(
            MerchantName::parse(name).map(|name| name.as_str() == nfc),
            Ok(true),
            "{name} ({language})"
        );
    }
}

#[test]
fn the_list_is_of_this_world() {
    let names: BTreeSet<&str> = all().map(|(name, _)| name).collect();
    let languages: BTreeSet<&str> = all().filter_map(|(_, tag)| tag.split('-').next()).collect();
    assert_eq!(names.len(), all().count(), "one is there twice");
    assert!(
        names.len() >= 60 && languages.len() >= 30,
        "{} names, {} languages",
        names.len(),
        languages.len()
    );
    // joiners, apostrophes, okina, a variant of an ideograph, the Mongolian vowel separator: an editor loses them in silence
    for (what, least) in [
        ('\u{200C}', 4),
        ('\u{200D}', 3),
        ('\u{2019}', 6),
        ('\u{2BB}', 5),
        ('\u{E0102}', 1),
        ('\u{180E}', 1),
        ('8', 1),
    ] {
        let count = names.iter().filter(|name| name.contains(what)).count();
        assert!(count >= least, "{what:?} is in {count} names");
    }
    assert!(names.iter().any(|name| name.len() == 1));
}
