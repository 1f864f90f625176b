//! The service's statements, as the build checked them: from `.sqlx`, so that a drill cannot run an older text.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A statement of the service.
#[derive(Debug, Clone)]
pub struct Statement {
    /// The text, byte for byte.
    pub text: String,
    /// The types of its parameters, by their names in PostgreSQL.
    pub parameters: Vec<String>,
}

impl Statement {
    /// The only statement that `is_wanted`.
    ///
    /// # Errors
    /// There is none or more than one, or `.sqlx` cannot be read.
    pub fn find(is_wanted: impl Fn(&str) -> bool) -> Result<Self> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.sqlx");
        let mut found = Vec::new();
        for entry in fs::read_dir(directory).context("the directory .sqlx")? {
            let query: Value = serde_json::from_slice(&fs::read(entry?.path())?)?;
            let text = query["query"].as_str().context("a query without a text")?;
            if is_wanted(text) {
                let types = query["describe"]["parameters"]["Left"].as_array().into_iter().flatten();
                let parameters = types.filter_map(Value::as_str).map(type_name).collect();
                found.push(Self { text: text.to_owned(), parameters });
            }
        }
        ensure!(found.len() == 1, "{} statements of .sqlx are meant instead of one", found.len());
        found.pop().context("one statement")
    }
}

/// sqlx names types like its own variants.
fn type_name(sqlx: &str) -> String {
    match sqlx.strip_suffix("Array") {
        Some(element) => format!("{}[]", element.to_lowercase()),
        None => sqlx.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_found_by_its_text() {
        let claim = Statement::find(|text| text.contains("INSERT INTO refunds")).unwrap();
        assert_eq!(claim.parameters[..5], ["uuid", "uuid", "uuid", "uuid", "text"]);
        assert!(Statement::find(|_| false).is_err());
        assert!(Statement::find(|_| true).is_err());
    }

    #[test]
    fn types_have_postgresqls_names() {
        assert_eq!(type_name("Timestamptz"), "timestamptz");
        assert_eq!(type_name("TextArray"), "text[]");
    }
}
