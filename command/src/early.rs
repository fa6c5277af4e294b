//! The ordinary `op` and `check`, from their first instruction to their last, without the C library.
//!
//! It has not started yet: there are no thread-locals, and memcpy, memset, memcmp and strlen are
//! not to be called, not by the compiler either. So nothing here is moved or compared in bulk,
//! formatted, or allocated; the system calls are rustix', which makes them itself. The tests run
//! the static program, which falls over here if anything forbidden creeps in.

use crate::answer::{Answer, HEAD_LEN};
use crate::harness::{Harness, Request, Step};
use crate::helper_file::{self, Text};
use crate::options::Options;
use crate::protocol::Kind;
use crate::sys::Process;

/// Memory for [`run`]: zero, so that only the pages that are used cost anything.
pub struct Scratch {
    text: Text,
    head: [u8; HEAD_LEN],
}

impl Scratch {
    pub const NEW: Scratch = Scratch {
        text: helper_file::NO_TEXT,
        head: [0; HEAD_LEN],
    };
}

/// A request that is published and not answered, or whose answer is not ordinary.
pub struct UnderWay {
    pub harness: Harness,
    pub request: Request,
    pub answer: Answer<'static>,
}

/// Serves `op` and `check` to the end and returns the exit status; `None` when the rest of the
/// program must do it, going on with what is `under_way`, if anything is.
pub fn run(
    process: Process,
    scratch: &'static mut Scratch,
    under_way: &mut Option<UnderWay>,
) -> Option<u8> {
    let (kind, options) = ordinary(process, &mut scratch.text)?;
    let harness = Harness::find(options.dir).ok()??;
    let request = harness.publish(kind).ok()??;
    let UnderWay {
        harness,
        request,
        answer,
    } = under_way.insert(UnderWay {
        harness,
        request,
        answer: Answer::new(&mut scratch.head),
    });
    loop {
        match harness.step(request, answer, true) {
            Ok(Step::Waiting) if !answer.is_full() => {}
            // Nothing in the FIFO: the result may be in a file.
            Ok(Step::Complete(status)) if !answer.is_empty() => {
                return answer.print().is_ok().then_some(status);
            }
            _ => return None,
        }
    }
}

/// What to do, and with which options, when that takes no more than a look.
fn ordinary(process: Process, text: &'static mut Text) -> Option<(Kind, Options<'static>)> {
    let mut options = Options::from_environment(process);
    let called = process.arg(0)?;
    if let Some(kind) = crate::cli::kind_of_name(called.to_bytes()) {
        let text = helper_file::load_beside(called, text).ok()??;
        helper_file::apply(text, kind, &mut options).ok()?;
        return (process.arg_count() == 1).then_some((kind, options));
    }
    let kind = crate::cli::kind_of_command(process.arg(1)?.to_bytes())?;
    match process.arg_count() {
        2 => {}
        4 if matches!(process.arg(2)?.to_bytes(), b"--dir") => options.dir = process.arg(3)?,
        _ => return None,
    }
    (!options.dir.is_empty()).then_some((kind, options))
}
