//! Antithesis' SDK: assertions, lifecycle events and randomness, for any language. Needs no
//! [`Composer`](crate::Composer).
//!
//! Lines go to `libvoidstar`, where it can be loaded; else to `$ANTITHESIS_OUTPUT_DIR/sdk.jsonl`; else
//! to the file that `$ANTITHESIS_SDK_LOCAL_OUTPUT` names; else nowhere. The first call decides for the
//! life of the process. What is written, and when, equals the official SDKs'.
//!
//! ```
//! use jepsen_antithesis::sdk::{self, AssertType};
//! use serde_json::json;
//!
//! const TOTAL: &str = "the balances add up";
//! sdk::declare(AssertType::Always, TOTAL);
//! sdk::setup_complete(None);
//! # let (total, read) = (100, 100);
//! sdk::assert(AssertType::Always, TOTAL, read == total, Some(&json!({"total": read})));
//! ```
//!
//! Every function is thread-safe, and works in a forked child, which decides anew where its lines go
//! and has seen no assertion yet. Nothing here fails or panics: a line that cannot be written is
//! reported on stderr, once for the life of the process, and the assertion's next hit tries again.
//!
//! Why this does not stand on the official crate: docs/design.md, "Antithesis' SDK".

mod fallback;

use crate::error::{Error, ErrorKind};
use crate::sys::{self, PerProcess, SetOnce, Voidstar};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock};

const PROTOCOL_VERSION: &str = "1.1.0";

/// What an assertion says of its condition. In a report each assertion is one property, named by its
/// message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AssertType {
    /// True at every hit, and hit at least once.
    Always,
    /// True at every hit, if there is any.
    AlwaysOrUnreachable,
    /// True at one hit at least.
    Sometimes,
    /// Hit at least once. The condition is taken as true.
    Reachable,
    /// Never hit. The condition is taken as false.
    Unreachable,
}

impl AssertType {
    /// `assert_type` and `display_type` of the line.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            AssertType::Always => ("always", "Always"),
            AssertType::AlwaysOrUnreachable => ("always", "AlwaysOrUnreachable"),
            AssertType::Sometimes => ("sometimes", "Sometimes"),
            AssertType::Reachable => ("reachability", "Reachable"),
            AssertType::Unreachable => ("reachability", "Unreachable"),
        }
    }

    fn must_hit(self) -> bool {
        !matches!(
            self,
            AssertType::AlwaysOrUnreachable | AssertType::Unreachable
        )
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Whether this process runs inside Antithesis: `ANTITHESIS_OUTPUT_DIR` is set and not empty.
pub fn inside() -> bool {
    fallback::set(fallback::OUTPUT_DIR).is_some()
}

/// Tells Antithesis that the system and the harness are ready: test commands and faults may begin.
/// Not for a test command, since those begin afterwards. `details`: a JSON object; anything else is
/// left out.
pub fn setup_complete(details: Option<&Value>) {
    name_rust();
    let _ = try_setup_complete(Details::of(details));
}

/// Puts a structured message into the log. `details` as in [`setup_complete`].
pub fn event(name: &str, details: Option<&Value>) {
    name_rust();
    let _ = try_event(name, Details::of(details));
}

/// Puts an assertion into the catalogue, so that the report shows it even when it is never hit. Call it
/// at start. A repetition does nothing.
pub fn declare(assert_type: AssertType, message: &str) {
    name_rust();
    let _ = try_declare(assert_type, message);
}

/// Hits an assertion. The first hit with a true condition and the first with a false one are written,
/// and later ones cost little. `message` names the property and must not vary; what varies belongs in
/// `details`, which are as in [`setup_complete`].
pub fn assert(assert_type: AssertType, message: &str, condition: bool, details: Option<&Value>) {
    name_rust();
    let _ = try_assert(assert_type, message, condition, Details::of(details));
}

/// 64 bits chosen by Antithesis; outside, pseudo-random ones. Use them at once, and do not seed a
/// generator with them: Antithesis explores by what it answers here.
pub fn random() -> u64 {
    PROCESS.get().random()
}

/// What a caller adds to a line.
#[derive(Clone, Copy)]
pub(crate) enum Details<'a> {
    Absent,
    Value(&'a Value),
    /// What a caller in another language says is a JSON object. Looked at only when a line is written:
    /// its length alone may cost more than the rest of a call.
    Text(&'a dyn Fn() -> Vec<u8>),
}

impl<'a> Details<'a> {
    fn of(value: Option<&'a Value>) -> Details<'a> {
        value.map_or(Details::Absent, Details::Value)
    }

    /// The details as one line of JSON, or `absent`, also when they are no JSON object; that is then
    /// the second part.
    fn in_line(self, absent: &'static str) -> (Cow<'static, str>, Result<(), Error>) {
        let problem = match self {
            Details::Absent => return (absent.into(), Ok(())),
            Details::Value(value @ Value::Object(_)) => return (value.to_string().into(), Ok(())),
            Details::Value(_) => "they are another JSON value".to_owned(),
            Details::Text(text) => match serde_json::from_slice::<&RawValue>(&text()) {
                Ok(json) if json.get().starts_with('{') => {
                    return (in_one_line(json.get()).into(), Ok(()));
                }
                Ok(_) => "they are another JSON value".to_owned(),
                Err(error) => error.to_string(),
            },
        };
        let message = format!(
            "the details are not a JSON object ({problem}), so they were left out of the line"
        );
        (absent.into(), Err(Error::new(ErrorKind::Invalid, message)))
    }
}

/// JSON has line breaks between tokens only: in strings they are escaped.
fn in_one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

/// A JSON string.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

pub(crate) fn try_setup_complete(details: Details<'_>) -> Result<(), Error> {
    let process = PROCESS.get();
    if process.says_nothing() {
        return Ok(());
    }
    let (details, valid) = details.in_line("null");
    process.say(fallback::setup_line(&details)).and(valid)
}

pub(crate) fn try_event(name: &str, details: Details<'_>) -> Result<(), Error> {
    let process = PROCESS.get();
    if process.says_nothing() {
        return Ok(());
    }
    let (details, valid) = details.in_line("{}");
    process
        .say(format!("{{{}:{details}}}", quoted(name)))
        .and(valid)
}

pub(crate) fn try_declare(assert_type: AssertType, message: &str) -> Result<(), Error> {
    let process = PROCESS.get();
    if process.says_nothing() {
        return Ok(());
    }
    let bit = assert_type.bit();
    let tracked = process.tracked(message);
    if tracked.declared.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
        return Ok(());
    }
    let said = process.say(assert_line(assert_type, message, false, false, "null"));
    if said.is_err() {
        tracked.declared.fetch_and(!bit, Ordering::Relaxed);
    }
    said
}

pub(crate) fn try_assert(
    assert_type: AssertType,
    message: &str,
    condition: bool,
    details: Details<'_>,
) -> Result<(), Error> {
    let process = PROCESS.get();
    if process.says_nothing() {
        return Ok(());
    }
    let condition = match assert_type {
        AssertType::Reachable => true,
        AssertType::Unreachable => false,
        _ => condition,
    };
    let tracked = process.tracked(message);
    let seen = if condition {
        &tracked.passed
    } else {
        &tracked.failed
    };
    // Looked at before it is written to: threads that repeat an assertion share the line of cache.
    if seen.load(Ordering::Relaxed) || seen.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let (details, valid) = details.in_line("null");
    let said = process.say(assert_line(assert_type, message, condition, true, &details));
    if said.is_err() {
        seen.store(false, Ordering::Relaxed);
    }
    said.and(valid)
}

fn assert_line(
    assert_type: AssertType,
    message: &str,
    condition: bool,
    hit: bool,
    details: &str,
) -> String {
    let (type_name, display_name) = assert_type.names();
    let must_hit = assert_type.must_hit();
    let message = quoted(message);
    format!(
        "{{\"antithesis_assert\":{{\"assert_type\":\"{type_name}\",\
         \"display_type\":\"{display_name}\",\"condition\":{condition},\"message\":{message},\
         \"location\":{{\"class\":\"\",\"function\":\"\",\"file\":\"\",\"begin_line\":0,\
         \"begin_column\":0}},\"hit\":{hit},\"must_hit\":{must_hit},\"id\":{message},\
         \"details\":{details}}}}}"
    )
}

/// Who says the lines.
struct Language {
    name: String,
    version: String,
}

/// The first to name itself. A forked child may look at any time, so there is no lock.
static LANGUAGE: SetOnce<Language> = SetOnce::new();

/// Names the language of the caller for the first line. The first call in a process counts.
pub(crate) fn language(name: &str, version: &str) {
    LANGUAGE.set(|| Language {
        name: name.to_owned(),
        version: version.to_owned(),
    });
}

fn name_rust() {
    language("Rust", env!("JEP_RUST_VERSION"));
}

/// The first line of a process.
fn version_line() -> String {
    let (name, version) = match LANGUAGE.get() {
        Some(language) => (&*language.name, &*language.version),
        None => ("C", ""),
    };
    format!(
        "{{\"antithesis_sdk\":{{\"language\":{{\"name\":{},\"version\":{}}},\"sdk_version\":\"{}\",\
         \"protocol_version\":\"{PROTOCOL_VERSION}\"}}}}",
        quoted(name),
        quoted(version),
        env!("CARGO_PKG_VERSION"),
    )
}

/// An assertion, by its message.
#[derive(Default)]
struct Tracked {
    passed: AtomicBool,
    failed: AtomicBool,
    /// The types it was declared with, as bits.
    declared: AtomicU8,
}

enum Destination {
    Voidstar(Voidstar),
    File(PathBuf),
    Nothing,
}

impl Destination {
    fn find() -> Destination {
        match Voidstar::load() {
            Some(voidstar) => Destination::Voidstar(voidstar),
            None => fallback::file().map_or(Destination::Nothing, Destination::File),
        }
    }
}

/// What one process has said, and to whom.
#[derive(Default)]
struct Process {
    destination: OnceLock<Destination>,
    has_said_version: AtomicBool,
    saying_version: Mutex<()>,
    /// The file ends within a line: the disk was full, say. The next one must not be added to it.
    is_torn: AtomicBool,
    tracked: RwLock<BTreeMap<Box<str>, &'static Tracked>>,
    random: OnceLock<u64>,
    drawn: AtomicU64,
}

static PROCESS: PerProcess<Process> = PerProcess::new();

impl Process {
    fn destination(&self) -> &Destination {
        self.destination.get_or_init(Destination::find)
    }

    fn says_nothing(&self) -> bool {
        matches!(self.destination(), Destination::Nothing)
    }

    /// What is known of an assertion. The lock is not held any more when a line is written: a file may
    /// take its time, and other assertions need not wait for it.
    fn tracked(&self, message: &str) -> &'static Tracked {
        let known = self.tracked.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(tracked) = known.get(message) {
            return tracked;
        }
        drop(known);
        let mut known = self.tracked.write().unwrap_or_else(PoisonError::into_inner);
        known
            .entry(message.into())
            .or_insert_with(|| Box::leak(Box::default()))
    }

    /// Gives a line out, after the process' first line.
    fn say(&self, line: String) -> Result<(), Error> {
        if !self.has_said_version.load(Ordering::Acquire) {
            let lock = self.saying_version.lock();
            let _lock = lock.unwrap_or_else(PoisonError::into_inner);
            if !self.has_said_version.load(Ordering::Relaxed) {
                self.begin();
                self.give(version_line())?;
                self.has_said_version.store(true, Ordering::Release);
            }
        }
        self.give(line)
    }

    /// A process that was killed may have left a line without its end.
    fn begin(&self) {
        if let Destination::File(path) = self.destination()
            && sys::ends_within_a_line(path)
        {
            self.is_torn.store(true, Ordering::Relaxed);
        }
    }

    fn give(&self, mut line: String) -> Result<(), Error> {
        match self.destination() {
            Destination::Nothing => Ok(()),
            Destination::Voidstar(voidstar) => {
                voidstar.json_data(&line);
                Ok(())
            }
            Destination::File(path) => {
                line.push('\n');
                let was_torn = self.is_torn.load(Ordering::Relaxed);
                if was_torn {
                    line.insert(0, '\n');
                }
                let appended = sys::append(path, line.as_bytes());
                match &appended {
                    Ok(()) if was_torn => self.is_torn.store(false, Ordering::Relaxed),
                    Err(unwritten) if unwritten.in_part => {
                        self.is_torn.store(true, Ordering::Relaxed);
                    }
                    _ => {}
                }
                appended.map_err(|unwritten| cannot_write(path, unwritten.errno))
            }
        }
    }

    fn random(&self) -> u64 {
        if let Destination::Voidstar(voidstar) = self.destination() {
            return voidstar.random();
        }
        let seed = *self.random.get_or_init(seed);
        split_mix(seed, self.drawn.fetch_add(1, Ordering::Relaxed))
    }
}

/// Says on stderr, once, that lines are lost.
fn cannot_write(path: &Path, errno: nix::errno::Errno) -> Error {
    static SAID: AtomicBool = AtomicBool::new(false);
    let message = format!(
        "cannot write to {}, which is read by Antithesis: {}; {}",
        path.display(),
        errno.desc(),
        fallback::ADVICE
    );
    if !SAID.swap(true, Ordering::Relaxed) {
        sys::say(&format!(
            "jepsen-antithesis: {message} The test goes on. This is said once.\n"
        ));
    }
    Error::new(ErrorKind::Io, message)
}

/// Differs between any two processes, a forked child and its parent among them.
fn seed() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.write_i64(sys::monotonic_ns());
    hasher.finish()
}

/// Steele, Lea, Flood: "Fast splittable pseudorandom number generators", the `index`-th number.
fn split_mix(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::ffi::CString;

    #[test]
    fn details_are_a_json_object_in_one_line() {
        for (text, line) in [
            (c"{}", "{}"),
            (c" \n{\"a\":\r\n[1,\t2]}\n", "{\"a\":  [1,\t2]}"),
            (c"{\"a\":\"\\n\"}", "{\"a\":\"\\n\"}"),
            // What a double would round stays as it is.
            (
                c"{\"a\":12345678901234567890123}",
                "{\"a\":12345678901234567890123}",
            ),
        ] {
            let read = || text.to_bytes().to_vec();
            let (rendered, valid) = Details::Text(&read).in_line("null");
            assert_eq!(rendered, line);
            assert!(valid.is_ok());
        }
        let deep = CString::new("{\"a\":".repeat(100_000)).unwrap();
        for text in [
            c"",
            c"[]",
            c"3",
            c"null",
            c"{",
            c"{}{}",
            c"{a:1}",
            c"{\"a\":NaN}",
            c"\"{}\"",
            c"{\"\xff\":1}",
            &deep,
        ] {
            let read = || text.to_bytes().to_vec();
            let (rendered, valid) = Details::Text(&read).in_line("null");
            assert_eq!(rendered, "null", "{text:?}");
            assert_eq!(valid.unwrap_err().kind(), ErrorKind::Invalid, "{text:?}");
        }
        let list = json!([1]);
        let (rendered, valid) = Details::Value(&list).in_line("{}");
        assert_eq!(rendered, "{}");
        assert!(valid.is_err());
    }

    #[test]
    fn every_line_is_json_whatever_the_message() {
        let message = "\"quotes\", \\, \n, \u{1}, \u{2028} and \u{1f600}";
        let line = assert_line(AssertType::Sometimes, message, true, true, "{\"a\":1}");
        assert!(!line.contains('\n'));
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["antithesis_assert"]["message"], message);
        assert_eq!(line["antithesis_assert"]["id"], message);
        assert_eq!(line["antithesis_assert"]["details"], json!({"a": 1}));
    }

    #[test]
    fn split_mix_gives_the_published_numbers() {
        // The first three for the seed 1234567.
        let numbers = [0, 1, 2].map(|index| split_mix(1_234_567, index));
        assert_eq!(
            numbers,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }
}
