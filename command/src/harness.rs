//! A living harness, as a command sees it.

use crate::answer::{Answer, Drained};
use crate::failure::Failed;
use crate::name::Name;
use crate::protocol::{Kind, marked_status, result_name};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};

/// How long a FIFO whose writer outlives its harness may stay silent. A process that exits closes
/// its descriptors one by one, and one that closes its composer may still be writing; but a child
/// that inherited the descriptor would hold it for ever.
const SILENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 500_000_000,
};

/// As many names are tried.
const ATTEMPTS: u64 = 100;

const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A control directory, and the harness that lives in it.
pub struct Harness {
    directory: OwnedFd,
    alive: OwnedFd,
}

/// A FIFO that the harness can see.
pub struct Request {
    name: Name,
    fifo: OwnedFd,
}

/// How far a request has come.
pub enum Step {
    Waiting,
    /// The answer is whole; with this status.
    Complete(u8),
    /// Nobody will answer it any more, and what there is of the answer is worth nothing.
    Lost,
}

impl Harness {
    /// The harness that lives in the control directory `path`, if one does.
    pub fn find(path: &CStr) -> Result<Option<Harness>, Failed> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match fs::openat(CWD, path, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(Failed::to("open the control directory")(errno)),
        };
        let failed = Failed::to("open .alive in the control directory");
        let alive = match fs::openat(&directory, c".alive", READ, Mode::empty()) {
            Ok(alive) => alive,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        };
        // A FIFO that nobody holds open for writing is at its end; poll(2) would not say so to a
        // reader that came after the writer.
        match rustix::io::read(&alive, &mut [0]) {
            Err(Errno::AGAIN) => Ok(Some(Harness { directory, alive })),
            Ok(_) => Ok(None),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Makes a FIFO and lets the harness see it; `None` when the directory was emptied or taken away
    /// meanwhile.
    pub fn publish(&self, kind: Kind) -> Result<Option<Request>, Failed> {
        self.publish_as(|attempt| Name::new(kind, attempt))
    }

    fn publish_as(&self, name: impl Fn(u64) -> Name) -> Result<Option<Request>, Failed> {
        let failed = Failed::to("make a FIFO in the control directory");
        let mut attempts = 0..ATTEMPTS;
        let mut next = || attempts.next().map(&name).ok_or(failed(Errno::EXIST));
        let mut staged = next()?;
        while let Err(errno) = self.make(&staged) {
            match errno {
                Errno::EXIST => staged = next()?,
                Errno::NOENT => return Ok(None),
                _ => return Err(failed(errno)),
            }
        }
        // Open before it is seen: the harness finds a reader at once, and sees it go.
        let fifo = match fs::openat(&self.directory, staged.staged(), READ, Mode::empty()) {
            Ok(fifo) => fifo,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        };
        let mut name = staged;
        while let Err(errno) = self.rename(&staged, &name) {
            if let (Errno::EXIST, Ok(another)) = (errno, next()) {
                name = another;
                continue;
            }
            let _ = fs::unlinkat(&self.directory, staged.staged(), AtFlags::empty());
            return match errno {
                Errno::NOENT => Ok(None),
                _ => Err(failed(errno)),
            };
        }
        Ok(Some(Request { name, fifo }))
    }

    fn make(&self, name: &Name) -> Result<(), Errno> {
        let owner = Mode::RUSR | Mode::WUSR;
        let make = || fs::mknodat(&self.directory, name.staged(), FileType::Fifo, owner, 0);
        match make() {
            Err(Errno::NOENT) => match fs::mkdirat(&self.directory, c".new", Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => make(),
                Err(errno) => Err(errno),
            },
            made => made,
        }
    }

    fn rename(&self, from: &Name, to: &Name) -> Result<(), Errno> {
        let (directory, flags) = (&self.directory, RenameFlags::NOREPLACE);
        fs::renameat_with(directory, from.staged(), directory, to.published(), flags)
    }

    /// Waits until something happens to the request or, where that counts, to the harness. Before
    /// the C library has started (`early`) the answer is taken only as far as its head.
    pub fn step(
        &self,
        request: &Request,
        answer: &mut Answer,
        early: bool,
    ) -> Result<Step, Failed> {
        let failed = Failed::to("wait for the result");
        let mut both = [
            PollFd::new(&request.fifo, PollFlags::IN),
            PollFd::new(&self.alive, PollFlags::empty()),
        ];
        match poll(&mut both, None) {
            Ok(_) => {}
            // Nothing is ready, and a read would take "no writer yet" for the end.
            Err(Errno::INTR) => return Ok(Step::Waiting),
            Err(errno) => return Err(failed(errno)),
        }
        // Before the harness' death counts: it may have died right after it completed this.
        if let Some(end) = end(request, answer, early).map_err(failed)? {
            return Ok(end);
        }
        if both[1].revents().is_empty() {
            return Ok(Step::Waiting);
        }
        if early {
            return Ok(Step::Lost);
        }
        loop {
            match poll(&mut both[..1], Some(&SILENCE)) {
                Ok(0) => return Ok(Step::Lost),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(failed(errno)),
            }
            if let Some(end) = end(request, answer, early).map_err(failed)? {
                return Ok(end);
            }
        }
    }

    /// Takes the file with the result of a request that was complete, if its result is in a file.
    pub fn take_result_file(&self, request: &Request) -> Result<Option<OwnedFd>, Failed> {
        let name = result_name(request.name.published().to_bytes());
        let name = CString::new(name).unwrap_or_default();
        match fs::openat(&self.directory, &*name, READ, Mode::empty()) {
            Ok(file) => {
                let _ = fs::unlinkat(&self.directory, &*name, AtFlags::empty());
                Ok(Some(file))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Failed::to("open the result's file")(errno)),
        }
    }

    /// Takes a request back that nobody will answer.
    pub fn withdraw(&self, request: Request) {
        let _ = fs::unlinkat(&self.directory, request.name.published(), AtFlags::empty());
    }
}

/// Drains the FIFO; how the request ended, if it did.
fn end(request: &Request, answer: &mut Answer, early: bool) -> Result<Option<Step>, Errno> {
    let drained = match early {
        true => answer.drain_short(request.fifo.as_fd())?,
        false => answer.drain(request.fifo.as_fd())?,
    };
    if drained == Drained::NotYet {
        return Ok(None);
    }
    let mode = fs::fstat(&request.fifo)?.st_mode;
    Ok(Some(marked_status(mode).map_or(Step::Lost, Step::Complete)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    /// A control directory, and the write end of its `.alive`.
    fn harness(directory: &Path) -> (Harness, OwnedFd, OwnedFd) {
        let path = CString::new(directory.as_os_str().as_bytes()).expect("no NUL");
        let owner = Mode::RUSR | Mode::WUSR;
        let alive = CString::new(directory.join(".alive").as_os_str().as_bytes()).expect("no NUL");
        fs::mknodat(CWD, &*alive, FileType::Fifo, owner, 0).expect("mknod");
        let reader = fs::open(&*alive, READ, Mode::empty()).expect("reader");
        let writer = fs::open(&*alive, OFlags::WRONLY, Mode::empty()).expect("writer");
        let harness = Harness::find(&path).expect("readable").expect("alive");
        (harness, reader, writer)
    }

    #[test]
    fn a_taken_name_is_left_alone_and_another_is_taken() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (harness, _reader, _writer) = harness(directory.path());
        let names = [1, 1, 2, 2].map(|number| Name::new(Kind::Op, number));
        let numbered = |attempt: u64| names[attempt as usize / 2 * 2];
        let first = harness.publish_as(numbered).expect("made").expect("there");
        let second = harness.publish_as(numbered).expect("made").expect("there");
        assert_eq!(first.name.published(), names[0].published());
        assert_eq!(second.name.published(), names[2].published());
        let entries = std::fs::read_dir(directory.path()).expect("listed").count();
        assert_eq!(entries, 4, ".alive, .new and two FIFOs");
        let staged = std::fs::read_dir(directory.path().join(".new"))
            .expect("listed")
            .count();
        assert_eq!(staged, 0);
    }

    #[test]
    fn names_that_are_all_taken_are_an_error() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (harness, _reader, _writer) = harness(directory.path());
        let only = Name::new(Kind::Op, 0);
        harness.publish_as(|_| only).expect("made").expect("there");
        let failed = harness.publish_as(|_| only).err().expect("taken");
        assert_eq!(failed.errno, Errno::EXIST);
        let staged = std::fs::read_dir(directory.path().join(".new"))
            .expect("listed")
            .count();
        assert_eq!(staged, 0);
    }
}
