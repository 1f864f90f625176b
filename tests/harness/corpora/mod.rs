//! Public corpora of texts that break programs, through every place where something can be sent.
//!
//! What is refused must be refused in words, and what is not must be taken and come back in its published form, whatever
//! the text is: which text is taken where is not judged here, emoji aside, which belong into everything that people write.

mod edges;
mod fields;
mod json;
mod sender;
mod texts;
mod watch;

use crate::{Api, Figures, RawClient, World, payment};
use anyhow::{Context, Result, ensure};
use sender::Sender;
use serde_json::json;
use std::fmt::{self, Display};
use std::num::NonZeroUsize;
use uuid::Uuid;
use watch::Watch;

pub use texts::{Corpora, JsonFile, Texts, nfc};
pub use watch::Positions;

/// What became of everything.
#[derive(Debug)]
pub struct CorporaReport {
    figures: Figures,
    positions: Positions,
    examples: Vec<String>,
}

impl CorporaReport {
    /// Whether every bound was kept.
    ///
    /// # Errors
    /// One was not.
    pub fn verdict(&self) -> Result<()> {
        self.figures.verdict()
    }
}

impl Display for CorporaReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.positions, self.figures)?;
        self.examples.iter().try_for_each(|example| writeln!(f, "  {example}"))
    }
}

/// A payment for one kind of texts: its id.
async fn fixed(api: &Api, capture: &str) -> Result<String> {
    let mut body = payment(&format!("order-{}", Uuid::new_v4()));
    body["capture"] = json!(capture);
    let created = api.create(&Uuid::new_v4().to_string(), &body).await?;
    ensure!(created.status == 201, "the service does not work at all: {}", created.json());
    Ok(created.json()["id"].as_str().context("an id")?.to_owned())
}

/// Sends everything everywhere; of emoji all through creates and the metadata of refunds, and one of `every` through the rest.
/// The world's services must log JSON.
///
/// # Errors
/// It cannot be done. What is wrong with the answers is in the report.
pub async fn corpora(world: &World, corpora: &Corpora, every: NonZeroUsize) -> Result<CorporaReport> {
    let watch = Watch::default();
    let mut figures = Figures::default();
    for (texts, is_welcome, every) in [(&corpora.naughty, false, 1), (&corpora.emoji, true, every.get())] {
        figures.tell(&format!("{} texts", texts.name), texts.texts.len());
        let api = world.new_merchant(texts.name).await?;
        let (held, captured) = (fixed(&api, "manual").await?, fixed(&api, "automatic").await?);
        let sender = &Sender::new(&watch, &api, texts, is_welcome)?;
        let (held, captured) = (held.as_str(), captured.as_str());
        if is_welcome {
            sender.each(|text| fields::create(sender, text)).await;
            let path = format!("/v1/payments/{captured}/refunds");
            fields::in_metadata(sender, &path, &json!({ "amount": 1 }), &texts.texts).await;
            sender.each_of(every, |text| fields::refund(sender, captured, text, false)).await;
        } else {
            sender.each(|text| create_and_refund(sender, captured, text)).await;
        }
        sender.each_of(every, |text| fields::capture_and_cancel(sender, held, text)).await;
        sender.each_of(every, |text| edges::headers(sender, text)).await;
        sender.each_of(every, |text| edges::paths(sender, text)).await;
        sender.each_of(every, |text| edges::queries(sender, captured, text)).await;
        // whatever was said to it, nobody captured or canceled it
        let captured = api.post(&format!("/v1/payments/{held}/capture"), "at-last", &json!({})).await?;
        figures.exactly(&format!("payment that {} texts left alone", texts.name), captured.status, 200);
    }
    let kinds = [corpora.naughty.name, corpora.emoji.name];
    if !corpora.json.is_empty() {
        let unqualified = &corpora.unqualified;
        figures.tell("emoji without their selectors", unqualified.texts.len());
        let sender = Sender::new(&watch, &world.api, unqualified, true)?;
        fields::in_metadata(&sender, "/v1/payments", &payment("order"), &unqualified.texts).await;
        json::files(&sender, &corpora.json, &mut figures).await;
    }
    watch.look_codes_up(&RawClient::of(&world.api)?).await;
    watch.read_log(&world.log(0)?, &mut figures);
    watch.figures(&mut figures);
    Ok(CorporaReport { figures, positions: watch.table(&kinds), examples: watch.examples() })
}

/// A create with a text, and a refund of what was created, or of another payment if nothing was.
async fn create_and_refund(sender: &Sender<'_>, captured: &str, text: &str) {
    let created = fields::create(sender, text).await;
    let own = created.as_ref().and_then(|payment| payment["id"].as_str());
    fields::refund(sender, own.unwrap_or(captured), text, own.is_some()).await;
}

/// The same as far as bodies go, and emoji many at once in metadata.
///
/// # Errors
/// It cannot be done. What is wrong with the answers is in the report.
pub async fn corpora_in_short(world: &World, corpora: &Corpora) -> Result<CorporaReport> {
    let watch = Watch::default();
    let mut figures = Figures::default();
    let api = world.new_merchant("naughty").await?;
    let sender = &Sender::new(&watch, &api, &corpora.naughty, false)?;
    sender.each(|text| fields::create(sender, text)).await;
    let emoji = Sender::new(&watch, &world.api, &corpora.emoji, true)?;
    fields::in_metadata(&emoji, "/v1/payments", &payment("order"), &corpora.emoji.texts).await;
    watch.look_codes_up(&RawClient::of(&world.api)?).await;
    watch.read_log(&world.log(0)?, &mut figures);
    watch.figures(&mut figures);
    Ok(CorporaReport { figures, positions: watch.table(&[corpora.naughty.name]), examples: watch.examples() })
}
