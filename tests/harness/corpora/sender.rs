//! Who sends the texts of one kind.

use super::texts::Texts;
use super::watch::{Fault, Watch};
use crate::{Answer, Api, RawClient, RawRequest};
use anyhow::Result;
use futures_util::stream::{self, StreamExt};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::fmt::Display;

/// So many requests are under way.
const AT_ONCE: usize = 16;

/// A merchant of their own, so that the references of one kind are not in the way of another's.
pub(super) struct Sender<'w> {
    watch: &'w Watch,
    client: RawClient,
    pub(super) texts: &'w Texts,
    /// Whether every one of them must be taken in what people write.
    pub(super) is_welcome: bool,
}

impl<'w> Sender<'w> {
    pub(super) fn new(watch: &'w Watch, api: &Api, texts: &'w Texts, is_welcome: bool) -> Result<Self> {
        Ok(Self { watch, client: RawClient::of(api)?, texts, is_welcome })
    }

    /// Does something with every text, many at once.
    pub(super) async fn each<'t, F: Future>(&'t self, of_text: impl Fn(&'t str) -> F) {
        self.each_of(1, of_text).await;
    }

    /// Does something with one text of so many.
    pub(super) async fn each_of<'t, F: Future>(&'t self, every: usize, of_text: impl Fn(&'t str) -> F) {
        stream::iter(self.texts.texts.iter().step_by(every))
            .map(|text| of_text(text))
            .buffer_unordered(AT_ONCE)
            .for_each(async |_| ())
            .await;
    }

    pub(super) async fn ask(&self, request: &RawRequest, text: &str) -> Option<Answer> {
        self.watch.ask(&self.client, request, text).await
    }

    pub(super) fn count(&self, position: &'static str, is_taken: bool) {
        self.watch.count(position, self.texts.name, is_taken);
    }

    pub(super) fn blame(&self, fault: Fault, what: impl Display) {
        self.watch.blame(fault, what);
    }

    pub(super) fn compare(&self, position: &str, sent: &str, expected: &str, read: &Value) {
        self.watch.compare(position, sent, expected, read);
    }

    /// The payments with this reference.
    pub(super) fn list_by_reference(&self, text: &str) -> RawRequest {
        RawRequest::new("GET", format!("/v1/payments?reference={}", encoded(text)))
    }
}

/// Text as it stands in a path or a query.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
