//! A living harness, as a command sees it.
//!
//! The harness closes its end of `.alive` after everything else, also when it closes its composer
//! while it goes on running. So once `.alive` has ended, no FIFO gets a mark any more, and a result
//! that has none yet is lost.

use crate::failure::Failed;
use crate::name::Name;
use crate::outside::{End, Outside, Woken};
use crate::protocol::{
    ALIVE, ALIVE_RESULTS_IN_FILES, Kind, NEW, NOT_TAKEN, marked_status, result_name,
};
use crate::result::{Drained, Received};
use crate::sys::Polled;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, StatxFlags};
use rustix::io::Errno;
use std::path::Path;

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
    /// A second name, where one is needed: see [`Harness::keep`].
    kept: Option<String>,
}

/// How a request ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The result is whole; with this status.
    Complete(u8),
    /// The harness let it go, and says that nobody has taken its operation.
    NotTaken,
    /// Nobody will answer it any more. Its operation may have been taken, so it is not repeated.
    Lost,
    Ended(End),
}

impl Harness {
    /// The harness that lives in the control directory `path`, if one does.
    pub fn find(path: &Path) -> Result<Option<Harness>, Failed> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match fs::openat(CWD, path, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(Failed::to("open the control directory")(errno)),
        };
        let failed = Failed::to("open .alive in the control directory");
        let alive = match fs::openat(&directory, ALIVE, READ, Mode::empty()) {
            Ok(alive) => alive,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        };
        // poll(2) does not report the end of a FIFO to a reader that came after the last writer had
        // gone; read(2) does, behind whatever someone has written into it.
        let mut ignored = [0; 4096];
        loop {
            match rustix::io::read(&alive, &mut ignored) {
                Err(Errno::AGAIN) => return Ok(Some(Harness { directory, alive })),
                Ok(0) => return Ok(None),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
    }

    /// Makes a FIFO and lets the harness see it; `None` when the directory was emptied or taken away
    /// meanwhile, in which case no harness has seen it.
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
        let kept = self.keep(&staged);
        let mut name = staged.clone();
        while let Err(errno) = self.rename(&staged, &name) {
            if let (Errno::EXIST, Ok(another)) = (errno, next()) {
                name = another;
                continue;
            }
            self.remove(staged.staged());
            kept.iter().for_each(|kept| self.remove(kept));
            return match errno {
                Errno::NOENT => Ok(None),
                _ => Err(failed(errno)),
            };
        }
        Ok(Some(Request { name, fifo, kept }))
    }

    fn make(&self, name: &Name) -> Result<(), Errno> {
        let owner = Mode::RUSR | Mode::WUSR;
        let make = || fs::mknodat(&self.directory, name.staged(), FileType::Fifo, owner, 0);
        match make() {
            Err(Errno::NOENT) => match fs::mkdirat(&self.directory, NEW, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => make(),
                Err(errno) => Err(errno),
            },
            made => made,
        }
    }

    /// Gives a FIFO a second name on FUSE. There a file that has lost its last name may be unknown to
    /// fstat(2) (it is on bindfs), and the harness removes the published name before the command can
    /// read the mark.
    fn keep(&self, staged: &Name) -> Option<String> {
        const FUSE: u32 = 0x6573_5546;
        let is_fuse = fs::fstatfs(&self.directory).is_ok_and(|of| of.f_type as u32 == FUSE);
        let kept = is_fuse.then(|| format!("{}.kept", staged.staged()))?;
        let (directory, none) = (&self.directory, AtFlags::empty());
        let linked = fs::linkat(directory, staged.staged(), directory, &*kept, none);
        linked.is_ok().then_some(kept)
    }

    /// The FIFO's permission bits, which hold the mark.
    fn mode(&self, request: &Request) -> Result<u32, Errno> {
        match &request.kept {
            None => Ok(fs::fstat(&request.fifo)?.st_mode),
            Some(kept) => {
                // Cached attributes would be those from before the mark.
                let fresh = AtFlags::STATX_FORCE_SYNC | AtFlags::SYMLINK_NOFOLLOW;
                let stat = fs::statx(&self.directory, &**kept, fresh, StatxFlags::MODE)?;
                Ok(stat.stx_mode.into())
            }
        }
    }

    fn rename(&self, from: &Name, to: &Name) -> Result<(), Errno> {
        let (directory, from, to) = (&self.directory, from.staged(), to.published());
        match fs::renameat_with(directory, from, directory, to, RenameFlags::NOREPLACE) {
            // The file system knows no flags (FUSE, ZFS), the kernel is old, or a filter refuses the
            // call. Names carry 64 random bits.
            Err(Errno::INVAL | Errno::NOSYS | Errno::PERM) => {
                fs::renameat(directory, from, directory, to)
            }
            renamed => renamed,
        }
    }

    /// Waits for the result, which is added to `received`.
    pub fn await_result(
        &self,
        request: &Request,
        received: &mut Received,
        outside: &Outside,
    ) -> Result<Outcome, Failed> {
        let outcome = self.await_end(request, received, outside);
        request.kept.iter().for_each(|kept| self.remove(kept));
        outcome
    }

    fn await_end(
        &self,
        request: &Request,
        received: &mut Received,
        outside: &Outside,
    ) -> Result<Outcome, Failed> {
        let failed = Failed::to("wait for the result");
        let mut drain = || received.drain(request.fifo.as_fd()).map_err(failed);
        loop {
            let mut both = [Polled::to_read(&request.fifo), Polled::to_end(&self.alive)];
            let woken = outside.wait(&mut both, None).map_err(failed)?;
            let [fifo, alive] = both.map(|polled| polled.is_ready());
            let ended = match woken {
                Woken::Ended(end) => Some(end),
                // A read would take "no writer yet" for the end.
                _ if !fifo && !alive => continue,
                _ => None,
            };
            // Whatever has happened, the result may have come just before.
            let drained = drain()?;
            let mode = self.mode(request).map_err(failed)?;
            match (drained, marked_status(mode)) {
                (Drained::End, Some(status)) => return Ok(Outcome::Complete(status)),
                // The mark is set after the last write. The end, after it, need not come: of a
                // harness that is stopped, or whose child has a copy of the descriptor.
                (Drained::NotYet, Some(status)) if alive || ended.is_some() => {
                    drain()?;
                    return Ok(Outcome::Complete(status));
                }
                (Drained::NotYet, Some(_)) => {}
                (drained, None) => {
                    if let Some(end) = ended {
                        return Ok(Outcome::Ended(end));
                    }
                    if mode & 0o777 == NOT_TAKEN {
                        return Ok(Outcome::NotTaken);
                    }
                    if drained == Drained::End || alive {
                        return Ok(Outcome::Lost);
                    }
                }
            }
        }
    }

    /// Takes the file with the result of a complete request, when nothing came through its FIFO.
    /// `false` when results of this harness go to files, and this one's is gone.
    pub fn take_result_file(
        &self,
        request: &Request,
        received: &mut Received,
    ) -> Result<bool, Failed> {
        let name = result_name(request.name.published().as_bytes());
        let failed = Failed::to("read the result's file");
        let file = match fs::openat(&self.directory, &*name, READ, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => {
                let mode = fs::fstat(&self.alive).map_err(failed)?.st_mode;
                return Ok(mode & ALIVE_RESULTS_IN_FILES == 0);
            }
            Err(errno) => return Err(failed(errno)),
        };
        received.drain(file.as_fd()).map_err(failed)?;
        let _ = fs::unlinkat(&self.directory, &*name, AtFlags::empty());
        Ok(true)
    }

    /// Takes a request back that nobody will answer.
    pub fn withdraw(&self, request: Request) {
        self.remove(request.name.published());
    }

    fn remove(&self, name: &str) {
        let _ = fs::unlinkat(&self.directory, name, AtFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A control directory, and the two ends of its `.alive`.
    fn harness(directory: &Path) -> (Harness, OwnedFd, OwnedFd) {
        let owner = Mode::RUSR | Mode::WUSR;
        let alive = directory.join(ALIVE);
        fs::mknodat(CWD, &alive, FileType::Fifo, owner, 0).expect("mknod");
        let reader = fs::open(&alive, READ, Mode::empty()).expect("reader");
        let writer = fs::open(&alive, OFlags::WRONLY, Mode::empty()).expect("writer");
        let harness = Harness::find(directory).expect("readable").expect("alive");
        (harness, reader, writer)
    }

    fn staged(directory: &Path) -> usize {
        let entries = std::fs::read_dir(directory.join(NEW)).expect("listed");
        entries.count()
    }

    #[test]
    fn a_taken_name_is_left_alone_and_another_is_taken() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (harness, _reader, _writer) = harness(directory.path());
        let names = [1, 2].map(|number| Name::new(Kind::Op, number));
        let numbered = |attempt: u64| names[attempt as usize / 2].clone();
        let first = harness.publish_as(numbered).expect("made").expect("there");
        let second = harness.publish_as(numbered).expect("made").expect("there");
        assert_eq!(first.name.published(), names[0].published());
        assert_eq!(second.name.published(), names[1].published());
        let entries = std::fs::read_dir(directory.path()).expect("listed").count();
        assert_eq!(entries, 4, ".alive, .new and two FIFOs");
        assert_eq!(staged(directory.path()), 0);
    }

    #[test]
    fn names_that_are_all_taken_are_an_error() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (harness, _reader, _writer) = harness(directory.path());
        let only = Name::new(Kind::Op, 0);
        let same = |_| only.clone();
        harness.publish_as(same).expect("made").expect("there");
        let failed = harness.publish_as(same).err().expect("taken");
        assert_eq!(failed.errno, Errno::EXIST);
        assert_eq!(staged(directory.path()), 0);
    }
}
