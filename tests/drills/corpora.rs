//! Shows that every input is answered well: the Big List of Naughty Strings and every emoji, through every field, header,
//! segment of a path and parameter, over real HTTP.
//!
//! Each text is refused in words, or taken and read back in its published form (NFC). No connection is dropped, no answer
//! is a 500, no log line is broken in two, and none has anything of a text in it. With a folder of public corpora there
//! are JSONTestSuite, the emoji of the newest Unicode, and the newest list of strings besides.

use anyhow::Result;
use clap::Args;
use e2e::{Corpora, WorldOptions, corpora};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

/// Send what breaks programs through every field, header, path and query.
#[derive(Debug, Args)]
#[command(after_help = "Example: CORPORA=some/folder drill corpora")]
pub struct Options {
    /// A folder with naughty/blns.json, emoji/emoji-test.txt and json/*.json; or the variable CORPORA
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Of so many emoji one goes everywhere; all of them go through creates and the metadata of refunds
    #[arg(long, default_value = "1")]
    every: NonZeroUsize,
}

/// Runs the drill.
///
/// # Errors
/// It cannot be run, or a bound is missed.
pub async fn run(options: Options) -> Result<()> {
    let mut texts = Corpora::of_crates();
    let folder = options.folder.or_else(|| std::env::var_os("CORPORA").map(PathBuf::from));
    match folder.filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => texts = texts.and_of_folder(&folder)?,
        None => println!("CORPORA names no folder: without JSONTestSuite, with what crates carry"),
    }
    // the debug build: it checks more, and panics where a release would go on
    let world = WorldOptions::default().set("PAYWRIGHT_LOG_FORMAT", "json").start().await?;
    let began = Instant::now();
    let report = corpora(&world, &texts, options.every).await?;
    println!("{report}  in {:.1} s", began.elapsed().as_secs_f64());
    world.finish().await?;
    report.verdict()
}
