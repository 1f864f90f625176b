//! What a drill found out: figures, and the bounds that some of them have to keep.

use crate::{Findings, Rule};
use anyhow::{Result, bail};
use std::fmt::{self, Display};

/// Figures in the order in which they were told. Printed, they are a short table.
#[derive(Debug, Default)]
pub struct Figures(Vec<Row>);

#[derive(Debug)]
struct Row {
    name: String,
    value: String,
    bound: Option<Bound>,
}

#[derive(Debug)]
struct Bound {
    text: String,
    is_kept: bool,
}

impl Figures {
    /// A figure that is only told.
    pub fn tell(&mut self, name: &str, value: impl Display) {
        self.0.push(Row { name: name.to_owned(), value: value.to_string(), bound: None });
    }

    /// A figure with a bound.
    pub fn bound(&mut self, name: &str, value: impl Display, bound: impl Display, is_kept: bool) {
        let bound = Bound { text: bound.to_string(), is_kept };
        self.0.push(Row { name: name.to_owned(), value: value.to_string(), bound: Some(bound) });
    }

    /// Something that must be true.
    pub fn holds(&mut self, name: &str, is_so: bool) {
        self.exactly(name, if is_so { "yes" } else { "no" }, "yes");
    }

    /// A figure that must be exactly so.
    pub fn exactly<T: Display + PartialEq>(&mut self, name: &str, value: T, wanted: T) {
        let is_kept = value == wanted;
        self.bound(name, value, format_args!("exactly {wanted}"), is_kept);
    }

    /// A figure that must be at least so.
    pub fn at_least<T: Display + PartialOrd>(&mut self, name: &str, value: T, least: T) {
        let is_kept = value >= least;
        self.bound(name, value, format_args!("at least {least}"), is_kept);
    }

    /// A figure that must be at most so.
    pub fn at_most<T: Display + PartialOrd>(&mut self, name: &str, value: T, most: T) {
        let is_kept = value <= most;
        self.bound(name, value, format_args!("at most {most}"), is_kept);
    }

    /// What the witnesses say.
    pub fn findings(&mut self, findings: &Findings) {
        self.tell("payments", findings.payments);
        self.tell("charges", findings.charges);
        if findings.attempts > 0 {
            self.tell("attempts of clients", findings.attempts);
        }
        for rule in Rule::ALL {
            self.exactly(rule.violation(), findings.count(rule), 0);
        }
        if findings.broken().next().is_some() {
            self.tell("the first of them", findings);
        }
    }

    /// Whether every bound was kept.
    ///
    /// # Errors
    /// One was not; all of them are named.
    pub fn verdict(&self) -> Result<()> {
        let missed = self.0.iter().filter_map(|row| {
            let bound = row.bound.as_ref().filter(|bound| !bound.is_kept)?;
            Some(format!("{} is {} ({})", row.name, row.value, bound.text))
        });
        let missed: Vec<String> = missed.collect();
        if missed.is_empty() { Ok(()) } else { bail!("bounds missed: {}", missed.join("; ")) }
    }
}

impl Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |text: fn(&Row) -> &str| self.0.iter().map(|row| text(row).chars().count()).max();
        let names = width(|row| &row.name).unwrap_or(0);
        let values = width(|row| &row.value).unwrap_or(0);
        for Row { name, value, bound } in &self.0 {
            write!(f, "  {name:names$}  {value:>values$}")?;
            if let Some(Bound { text, is_kept }) = bound {
                write!(f, "  {} {text}", if *is_kept { "ok" } else { "MISSED" })?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_missed_bound_is_named() {
        let mut figures = Figures::default();
        figures.tell("rounds", 3);
        figures.exactly("charges", 3, 3);
        figures.verdict().unwrap();
        figures.at_least("kills", 1, 2);
        figures.at_most("seconds", 3, 2);
        let complaint = figures.verdict().unwrap_err().to_string();
        assert_eq!(complaint, "bounds missed: kills is 1 (at least 2); seconds is 3 (at most 2)");
        assert!(figures.to_string().contains("kills    1  MISSED at least 2"), "{figures}");
    }
}
