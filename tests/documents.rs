//! What the documents name is there: targets, files, settings, commands, metrics. A document is every `*.md` outside of `target/`
//! and hidden directories.
//!
//! The rule for paths: a code span without blanks that begins with a directory of [`ROOTS`] is a path from the root; one
//! that ends in `.rs` and begins with a package's name, or a room of the service as in [`ROOMS`], is below its `src`.
//! What holds `*`, `{`, `<` or `NNNN` is a pattern, and none.
//!
//! The place that lists every setting is `paywright --help`. Documents name those that they have something to say about.

use crate::metrics::scrape_of;
use crate::reconcile::make_due;
use crate::support::seconds;
use anyhow::{Context, Result, ensure};
use e2e::{Profile, World, eventually, payment, programs};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Directories whose names begin a path from the repository's root.
const ROOTS: [&str; 10] = [
    "crates/",
    "tests/",
    "migrations/",
    "docs/",
    "deploy/",
    "template/",
    ".github/",
    ".ci/",
    ".cargo/",
    ".sqlx/",
];
/// Packages and rooms of the service: how the path of a file in them begins, and where it is.
const ROOMS: [(&str, &str); 10] = [
    ("app/", "crates/api/src/app"),
    ("http/", "crates/api/src/http"),
    ("middleware/", "crates/api/src/middleware"),
    ("worker/", "crates/api/src/worker"),
    ("api/", "crates/api/src"),
    ("domain/", "crates/domain/src"),
    ("persistence/", "crates/persistence/src"),
    ("provider/", "crates/provider/src"),
    ("simulator/", "crates/simulator/src"),
    ("devstack/", "crates/devstack/src"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A document of the repository.
struct Document {
    /// Its path from the root.
    path: PathBuf,
    lines: Vec<Line>,
}

struct Line {
    text: String,
    /// Whether it stands in a block of code.
    is_code: bool,
}

/// A piece of a document, and where it stands, for whoever has to mend it.
struct Piece {
    place: String,
    text: String,
}

impl Document {
    fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(root().join(path))?;
        let mut in_block = false;
        let lines = text.lines().map(|line| {
            let is_fence = line.trim_start().starts_with("```");
            in_block ^= is_fence;
            Line { text: line.to_owned(), is_code: in_block || is_fence }
        });
        Ok(Self { path: path.to_owned(), lines: lines.collect() })
    }

    fn piece(&self, at: usize, text: &str) -> Piece {
        Piece { place: format!("{}:{}", self.path.display(), at + 1), text: text.trim().to_owned() }
    }

    /// Every code span. One may go on in the next line, and none goes past the end of its paragraph.
    fn spans(&self) -> Vec<Piece> {
        let (mut spans, mut open) = (Vec::new(), None::<(usize, String)>);
        for (at, line) in self.lines.iter().enumerate() {
            if line.is_code || line.text.trim().is_empty() {
                open = None;
                continue;
            }
            for (nth, part) in line.text.split('`').enumerate() {
                if nth > 0 {
                    match open.take() {
                        Some((began, text)) => spans.push(self.piece(began, &text)),
                        None => open = Some((at, String::new())),
                    }
                }
                if let Some((_, text)) = &mut open {
                    text.push_str(part);
                }
            }
            if let Some((_, text)) = &mut open {
                text.push(' ');
            }
        }
        spans
    }

    /// What somebody may type: code spans, and the lines of blocks.
    fn commands(&self) -> Vec<Piece> {
        let lines = self.lines.iter().enumerate().filter(|(_, line)| line.is_code);
        let mut commands: Vec<Piece> = lines.map(|(at, line)| self.piece(at, &line.text)).collect();
        commands.extend(self.spans());
        commands
    }

    /// Where the links lead to that stand outside of blocks of code.
    fn links(&self) -> Vec<Piece> {
        let lines = self.lines.iter().enumerate().filter(|(_, line)| !line.is_code);
        lines
            .flat_map(|(at, line)| {
                let targets = line.text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
                targets.map(move |target| self.piece(at, target)).collect::<Vec<_>>()
            })
            .collect()
    }

    /// What a link behind `#` may name.
    fn anchors(&self) -> BTreeSet<String> {
        let headings = self.lines.iter().filter(|line| !line.is_code && line.text.starts_with('#'));
        headings.map(|line| anchor(line.text.trim_start_matches('#').trim())).collect()
    }
}

/// As hosting platforms make it: lower case, blanks are hyphens, and other signs are left out.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn documents() -> Result<Vec<Document>> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
        for entry in fs::read_dir(root().join(directory))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') || name == "target" {
                continue;
            }
            let path = directory.join(&name);
            if entry.file_type()?.is_dir() {
                walk(&path, found)?;
            } else if name.ends_with(".md") {
                found.push(path);
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(Path::new(""), &mut found)?;
    found.sort();
    ensure!(found.iter().any(|path| path == Path::new("README.md")), "no README.md in {:?}", root());
    found.iter().map(|path| Document::read(path)).collect()
}

/// Everything that is wrong, at once.
fn report(wrong: Vec<String>) -> Result<()> {
    ensure!(wrong.is_empty(), "the documents name what is not there:\n  {}", wrong.join("\n  "));
    Ok(())
}

/// The words of a command, up to the first that is none: a flag, a value, what a shell reads.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_word =
        |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') && !word.starts_with('-');
    text.split_whitespace().take_while(is_word)
}

#[test]
fn every_target_is_in_the_makefile() -> Result<()> {
    let makefile = fs::read_to_string(root().join("Makefile"))?;
    let has = |target: &str| makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
    let drills = fs::read_to_string(root().join("tests/drills/main.rs"))?;
    let stories = fs::read_to_string(root().join("tests/drills/story.rs"))?;
    let mut wrong = Vec::new();
    let mut named = BTreeSet::new();
    for Piece { place, text } in documents()?.iter().flat_map(Document::commands) {
        let Some(rest) = text.strip_prefix("make ") else { continue };
        for target in words(rest) {
            named.insert(target.to_owned());
            if !has(target) {
                wrong.push(format!("{place}: `make {target}` is no target of the Makefile"));
            }
        }
        let argument = rest.strip_prefix("drill ").and_then(|rest| rest.split_whitespace().next());
        let named = |variable| argument.and_then(|argument| argument.strip_prefix(variable));
        if let Some(name) = named("NAME=").filter(|name| !drills.contains(&format!("mod {name};"))) {
            wrong.push(format!("{place}: `{text}`: {name} is no drill of tests/drills/main.rs"));
        }
        let is_told = |number: &&str| stories.contains(&format!("name = \"{number}\""));
        if let Some(number) = named("STORY=").filter(|number| !is_told(number)) {
            wrong.push(format!("{place}: `{text}`: {number} is no story of tests/drills/story.rs"));
        }
    }
    ensure!(named.contains("run"), "nobody names `make run`: the documents are read wrongly");
    report(wrong)
}

#[test]
fn every_link_leads_somewhere() -> Result<()> {
    let documents = documents()?;
    let anchors: BTreeMap<PathBuf, BTreeSet<String>> = documents
        .iter()
        .map(|document| Ok((root().join(&document.path).canonicalize()?, document.anchors())))
        .collect::<Result<_>>()?;
    let mut wrong = Vec::new();
    for document in &documents {
        for Piece { place, text } in document.links() {
            if ["http://", "https://", "mailto:"].iter().any(|scheme| text.starts_with(scheme)) {
                continue;
            }
            let (path, anchor) = text.split_once('#').map_or((text.as_str(), None), |(p, a)| (p, Some(a)));
            let here = root().join(&document.path);
            let target = match path {
                "" => here,
                path => here.parent().context("a document is in a directory")?.join(path),
            };
            let Ok(target) = target.canonicalize() else {
                wrong.push(format!("{place}: the link to {path} leads to no file"));
                continue;
            };
            let has = |anchor: &str| anchors.get(&target).is_some_and(|known| known.contains(anchor));
            if let Some(anchor) = anchor.filter(|anchor| !has(anchor)) {
                wrong.push(format!("{place}: {text}: there is no heading for #{anchor}"));
            }
        }
    }
    report(wrong)
}

/// The file that a code span names, if it names one.
fn named_path(span: &str) -> Option<PathBuf> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    if !span.chars().all(plain) || span.contains("NNNN") {
        return None;
    }
    if ROOTS.iter().any(|root| span.starts_with(root)) {
        return Some(PathBuf::from(span));
    }
    let room = ROOMS.iter().find_map(|(name, place)| Some(Path::new(place).join(span.strip_prefix(name)?)));
    room.filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
}

#[test]
fn every_path_is_there() -> Result<()> {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for Piece { place, text } in documents()?.iter().flat_map(Document::spans) {
        let Some(path) = named_path(&text) else { continue };
        seen += 1;
        if !root().join(&path).exists() {
            wrong.push(format!("{place}: `{text}`: there is no {}", path.display()));
        }
    }
    ensure!(seen > 0, "no path was found: the documents are read wrongly");
    report(wrong)
}

#[test]
fn paths_are_told_from_other_code() {
    let path = |span| named_path(span).map(|path| path.display().to_string());
    assert_eq!(path("crates/api/src/cli.rs").as_deref(), Some("crates/api/src/cli.rs"));
    assert_eq!(path("app/once.rs").as_deref(), Some("crates/api/src/app/once.rs"));
    assert_eq!(path("domain/payment.rs").as_deref(), Some("crates/domain/src/payment.rs"));
    for other in ["/docs/errors", "migrations/*.up.sql", "crates/<name>", "http/1.1", "a/b", "cargo test"] {
        assert_eq!(path(other), None, "{other}");
    }
}

/// The names in a text that begin as the service's settings do.
fn settings(text: &str) -> impl Iterator<Item = &str> {
    let names = text.split(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_');
    names.filter(|name| name.starts_with("PAYWRIGHT_") && !name.ends_with('_'))
}

/// The service's settings, and what the development stack and the tests read beside them.
fn known_settings() -> Result<BTreeSet<String>> {
    let mut known = BTreeSet::new();
    for source in ["crates/api/src/config.rs", "crates/devstack/src/stack/programs.rs"] {
        let text = fs::read_to_string(root().join(source)).context(source)?;
        known.extend(text.split('"').skip(1).step_by(2).flat_map(settings).map(str::to_owned));
    }
    Ok(known)
}

#[test]
fn every_setting_is_one() -> Result<()> {
    let known = known_settings()?;
    ensure!(known.contains("PAYWRIGHT_LISTEN"), "the settings are read wrongly: {known:?}");
    let mut wrong = Vec::new();
    for document in documents()? {
        for (at, line) in document.lines.iter().enumerate() {
            for name in settings(&line.text) {
                // any setting may come from a file
                if !known.contains(name)
                    && !name.strip_suffix("_FILE").is_some_and(|name| known.contains(name))
                {
                    wrong.push(format!("{}: {name} is no setting", document.piece(at, name).place));
                }
            }
        }
    }
    report(wrong)
}

/// What the service's program says to these arguments, and whether it takes them.
fn service(arguments: &[&str]) -> Result<(bool, String)> {
    let mut command = Command::new(programs(Profile::Debug)?.join("paywright"));
    let output = command.args(arguments).env_clear().stdin(Stdio::null()).output()?;
    Ok((output.status.success(), String::from_utf8(output.stdout)?))
}

#[test]
fn help_lists_every_setting() -> Result<()> {
    let (_, help) = service(&["--help"])?;
    let listed: BTreeSet<&str> = settings(&help).collect();
    let config = fs::read_to_string(root().join("crates/api/src/config.rs"))?;
    let table = config.split("pub const SETTINGS").nth(1).and_then(|rest| rest.split("\n];").next());
    let declared: BTreeSet<&str> = settings(table.context("no table of settings in config.rs")?).collect();
    ensure!(declared.contains("PAYWRIGHT_LISTEN"), "the table is read wrongly: {declared:?}");
    let missing: Vec<_> = declared.difference(&listed).collect();
    ensure!(missing.is_empty(), "paywright --help does not list {missing:?}");
    Ok(())
}

#[test]
fn every_subcommand_is_one() -> Result<()> {
    let mut named: BTreeMap<Vec<String>, String> = BTreeMap::new();
    for Piece { place, text } in documents()?.iter().flat_map(Document::commands) {
        let text =
            text.strip_prefix("target/debug/").or(text.strip_prefix("target/release/")).unwrap_or(&text);
        let Some(rest) = text.strip_prefix("paywright ") else { continue };
        // a command and what it does; what comes behind is a value
        let words: Vec<String> = words(rest).take(2).map(str::to_owned).collect();
        if !words.is_empty() {
            named.entry(words).or_insert(place);
        }
    }
    ensure!(named.contains_key(&["serve".to_owned()][..]), "nobody names `paywright serve`: read wrongly");
    let mut wrong = Vec::new();
    for (words, place) in named {
        let arguments: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
        if !service(&arguments)?.0 {
            wrong.push(format!("{place}: `paywright {}` is no command", words.join(" ")));
        }
    }
    report(wrong)
}

/// What may be named of metrics: those that a service shows, and their labels.
struct Shown {
    metrics: BTreeSet<String>,
    labels: BTreeSet<String>,
}

impl Shown {
    fn read(text: &str) -> Self {
        let metrics = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let series = text.lines().filter(|line| !line.starts_with('#'));
        let labels = series.filter_map(|line| line.split_once('{')?.1.rsplit_once('}'));
        let labels = labels.flat_map(|(labels, _)| labels.split(',')).filter_map(|pair| pair.split_once('='));
        Self {
            metrics: metrics.map(str::to_owned).collect(),
            labels: labels.map(|(name, _)| name.to_owned()).collect(),
        }
    }

    fn has(&self, name: &str) -> bool {
        let series = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end));
        self.labels.contains(name)
            || [Some(name), series].into_iter().flatten().any(|name| self.metrics.contains(name))
    }
}

#[tokio::test]
async fn the_documents_name_every_metric_and_no_other() -> Result<()> {
    const METRICS: [&str; 7] = [
        "http_server_",
        "http_client_",
        "payments_operations_",
        "payments_idempotency_",
        "payments_reconciliation_",
        "payments_provider_",
        "db_client_",
    ];
    let world = World::start().await?;
    // some are counted only from their first time on
    world.simulator.create_fault("reset_before", Some(1), 0).await?;
    assert_eq!(world.api.create("key", &payment("order-1")).await?.status, 201);
    make_due(&world).await?;
    let mut text = String::new();
    eventually(seconds(30), "what was compared is told", async || {
        text = scrape_of(&world, 0).await?;
        Ok(text.contains("payments_reconciliation_last_"))
    })
    .await?;
    let shown = Shown::read(&text);
    world.finish().await?;
    let mut wrong = Vec::new();
    let mut named = BTreeSet::new();
    for Piece { place, text } in documents()?.iter().flat_map(Document::spans) {
        let name = text.split('=').next().unwrap_or_default();
        if METRICS.iter().any(|prefix| text.starts_with(prefix)) && !shown.has(name) {
            wrong.push(format!("{place}: `{text}` is no metric at /metrics, nor a label"));
        }
        named.insert(text);
    }
    let unnamed =
        shown.metrics.difference(&named).map(|name| format!("`{name}` is at /metrics and in no document"));
    wrong.extend(unnamed);
    let kinds =
        text.lines().filter_map(|line| line.split("payments_difference_kind=\"").nth(1)?.split('"').next());
    wrong.extend(
        kinds
            .filter(|kind| !named.contains(*kind))
            .map(|kind| format!("`{kind}` is found and in no document")),
    );
    report(wrong)
}
