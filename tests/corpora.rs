//! Texts that break programs, and every emoji: what `make test-corpora` shows at full size, here through the bodies of
//! creates.

use anyhow::{Context, Result};
use e2e::{Corpora, WorldOptions, corpora_in_short};

#[tokio::test]
async fn what_breaks_programs_is_answered_well() -> Result<()> {
    let world = WorldOptions::default().set("PAYWRIGHT_LOG_FORMAT", "json").start().await?;
    let report = corpora_in_short(&world, &Corpora::of_crates()).await?;
    report.verdict().with_context(|| report.to_string())?;
    world.finish().await
}
