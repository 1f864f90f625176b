//! Reads form-encoded parameters the way Stripe does: brackets nest, unknown names are refused, codes say why.

use crate::objects::{ApiError, Metadata};

/// The largest amount a card charge may have, in the minor unit (Stripe documentation: minimum and maximum amounts).
const MAX_AMOUNT: u64 = 99_999_999;

/// The parameters of one request. Each is taken once by whoever understands it; what is left over is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Params {
    /// Decoded, sorted by name; values of a repeated name keep their order.
    pairs: Vec<(String, String)>,
}

impl Params {
    /// Decodes a query string or a form body.
    pub(crate) fn parse(encoded: &[u8]) -> Self {
        let mut pairs: Vec<_> = url::form_urlencoded::parse(encoded).into_owned().collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        Self { pairs }
    }

    /// Every name and value, in an order that does not depend on the caller's.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of `name`. Empty means absent: that is how a form unsets a value.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        self.take(|candidate| candidate == name)
            .pop()
            .map(|(_, value)| value)
            .filter(|value| !value.is_empty())
    }

    /// A value that must be there.
    pub(crate) fn required(&mut self, name: &str) -> Result<String, ApiError> {
        self.text(name).ok_or_else(|| missing(name))
    }

    /// A value that is one of a list; `parse` returns `None` for anything else.
    pub(crate) fn choice<T>(
        &mut self,
        name: &str,
        choices: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.text(name) else { return Ok(None) };
        match parse(&value) {
            Some(choice) => Ok(Some(choice)),
            None => Err(ApiError::parameter(
                "parameter_invalid_string_enum",
                name,
                format!("Invalid {name}: must be one of {choices}"),
            )),
        }
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        let Some(value) = self.text(name) else { return Ok(None) };
        match value.as_str() {
            "true" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            _ => Err(ApiError::parameter(
                "parameter_invalid_boolean",
                name,
                format!("Invalid boolean: {value}"),
            )),
        }
    }

    /// An integer from `min`, such as a time or a page size.
    pub(crate) fn integer(&mut self, name: &str, min: u64) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.text(name) else { return Ok(None) };
        let refuse = |message: String| Err(ApiError::parameter("parameter_invalid_integer", name, message));
        match value.parse::<i128>().map(u64::try_from) {
            Ok(Ok(number)) if number >= min => Ok(Some(number)),
            Ok(_) => refuse(format!("This value must be greater than or equal to {min}.")),
            Err(_) => refuse(format!("Invalid integer: {value}")),
        }
    }

    /// An amount in the minor unit, from 1 to what a card can be charged.
    pub(crate) fn amount(&mut self, name: &str) -> Result<Option<u64>, ApiError> {
        match self.integer(name, 1)? {
            Some(amount) if amount > MAX_AMOUNT => Err(ApiError::parameter(
                "amount_too_large",
                name,
                "Amount must be no more than $999,999.99".to_owned(),
            )),
            amount => Ok(amount),
        }
    }

    /// An amount that must be there.
    pub(crate) fn required_amount(&mut self, name: &str) -> Result<u64, ApiError> {
        self.amount(name)?.ok_or_else(|| missing(name))
    }

    /// `name[]=a&name[]=b`, or `name[0]=a&name[1]=b`.
    pub(crate) fn list(&mut self, name: &str) -> Vec<String> {
        let is_index = |index: &str| index.bytes().all(|byte| byte.is_ascii_digit());
        self.take(|candidate| nested(candidate, name).is_some_and(is_index))
            .into_iter()
            .map(|(_, value)| value)
            .collect()
    }

    /// `name[key]=value`, within Stripe's limits (Stripe API: metadata). Empty values unset their key.
    pub(crate) fn metadata(&mut self, name: &str) -> Result<Metadata, ApiError> {
        let mut metadata = Metadata::new();
        for (full_name, value) in self.take(|candidate| nested(candidate, name).is_some()) {
            let Some(key) = nested(&full_name, name) else { continue };
            if key.is_empty() || key.chars().count() > 40 || key.contains(['[', ']']) {
                let message = "Metadata keys have 1 to 40 characters and no square brackets.";
                return Err(ApiError::parameter("parameter_invalid_string", &full_name, message));
            }
            if value.chars().count() > 500 {
                let message = "Metadata values can have up to 500 characters.";
                return Err(ApiError::parameter("parameter_invalid_string", &full_name, message));
            }
            if !value.is_empty() {
                metadata.insert(key.to_owned(), value);
            }
        }
        if metadata.len() > 50 {
            return Err(ApiError::parameter("parameter_invalid", name, "Metadata can have up to 50 keys."));
        }
        Ok(metadata)
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        match self.pairs.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => {
                let message = format!("Received unknown parameter: {name}");
                Err(ApiError::parameter("parameter_unknown", &name, message))
            }
        }
    }

    fn take(&mut self, matches: impl Fn(&str) -> bool) -> Vec<(String, String)> {
        self.pairs.extract_if(.., |(name, _)| matches(name)).collect()
    }
}

fn missing(name: &str) -> ApiError {
    ApiError::parameter("parameter_missing", name, format!("Missing required param: {name}."))
}

/// `key` of `name[key]`.
fn nested<'a>(full_name: &'a str, name: &str) -> Option<&'a str> {
    full_name.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_nest_and_order_does_not_matter() {
        let mut params =
            Params::parse(b"metadata[b]=2&amount=10&payment_method_types[]=card&metadata%5Ba%5D=1");
        let again = Params::parse(b"amount=10&metadata[a]=1&metadata[b]=2&payment_method_types%5B%5D=card");
        assert!(params.pairs().eq(again.pairs()));
        assert_eq!(params.amount("amount"), Ok(Some(10)));
        assert_eq!(params.list("payment_method_types"), ["card"]);
        let metadata = params.metadata("metadata").unwrap();
        assert_eq!(
            metadata.into_iter().collect::<Vec<_>>(),
            [("a".into(), "1".into()), ("b".into(), "2".into())]
        );
        assert_eq!(params.finish(), Ok(()));
    }

    #[test]
    fn refusals_name_code_and_parameter() {
        let code = |result: Result<Option<u64>, ApiError>| {
            let error = result.unwrap_err();
            (error.code.unwrap().into_owned(), error.param.unwrap())
        };
        let amount = |form: &[u8]| code(Params::parse(form).amount("amount"));
        assert_eq!(amount(b"amount=0"), ("parameter_invalid_integer".into(), "amount".into()));
        assert_eq!(amount(b"amount=-5"), ("parameter_invalid_integer".into(), "amount".into()));
        assert_eq!(amount(b"amount=1.5"), ("parameter_invalid_integer".into(), "amount".into()));
        assert_eq!(amount(b"amount=100000000"), ("amount_too_large".into(), "amount".into()));
        let unknown = Params::parse(b"amonut=5").finish().unwrap_err();
        assert_eq!(unknown.code.as_deref(), Some("parameter_unknown"));
        let missing = Params::parse(b"amount=").required("amount").unwrap_err();
        assert_eq!(missing.code.as_deref(), Some("parameter_missing"));
    }
}
