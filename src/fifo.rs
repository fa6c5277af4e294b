//! One script's FIFO and this library's end of it.
//!
//! A FIFO opens for writing only while someone reads it. A script that has made its FIFO but not
//! opened it yet gives no sign when it blocks in open(2). So the FIFO is opened with a reader of
//! our own beside, which leaves at once: the write end stays, lets the script's open through the
//! moment it comes, and poll(2) on it tells whether a reader is there.
//!
//! Unless that reader is our own: a process that the host starts at that very moment has a copy of
//! every descriptor until it executes its program, and neither close-on-exec nor fork handlers
//! prevent that. So our own reader is locked, which shows as long as a copy is open. What is in
//! doubt is looked at again a little later. A script that opened its FIFO and died meanwhile is
//! known by its close: it was open for reading only, and our own reader is open for both.

use crate::directory::ControlDir;
use crate::protocol::mark;
use crate::sys::{self, Fd, FileId, Lock};
use crate::watch::Watch;
use inotify::WatchDescriptor;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fchmod};
use std::ffi::CString;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

pub(crate) struct Fifo {
    pub(crate) name: CString,
    pub(crate) file: FileId,
    end: End,
    own_reader: OwnReader,
    /// Sees the script open and close it. From before our own reader is opened until it has.
    watch: Option<WatchDescriptor>,
}

/// What is known of the reader of our own that let the write end open.
#[derive(Clone, Copy)]
enum OwnReader {
    Gone,
    /// A copy may be open. Our own was opened at that time.
    Open(Instant),
    /// No copy was open any more at that time; but one that is closed loses its lock a moment
    /// before it stops to be a reader.
    Closed(Instant),
}

/// Ample for that moment.
const CLOSING: Duration = Duration::from_millis(10);

/// No process gets from being started to the closing of its copies in so short a time.
const STARTING: Duration = Duration::from_micros(30);

enum End {
    /// Not opened yet: there was no reader when it was tried, or no descriptor to spare.
    Unopened,
    /// Only our own reader is open, for want of a second descriptor. The script may have it open
    /// by now, and closing ours would be the end of file to it.
    HalfOpen { own_reader: Fd, seen: bool },
    /// Held open for a script that has not opened it yet.
    Awaiting(Fd),
    /// The script has it open, or had before it died.
    Attached(Fd),
    /// The name is gone, or no longer this FIFO's: the script cannot be reached.
    Lost,
}

/// How much of the data went into the pipe.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    All,
    /// So many bytes; the script must read before more fits.
    Part(usize),
    /// Nothing yet: the script has not opened its FIFO.
    NotOpened,
    /// Nothing yet: no descriptor can be had to open it, no memory to write, or what is written
    /// might go to a copy of our own reader.
    NotNow,
    /// The script is gone.
    Nobody,
}

/// Who reads a FIFO that is held open.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    Nobody,
    Script,
    /// Perhaps only a copy of our own reader, in a process that the host is starting.
    Unclear,
}

impl Fifo {
    pub(crate) fn new(name: CString, file: FileId) -> Fifo {
        Fifo {
            name,
            file,
            end: End::Unopened,
            own_reader: OwnReader::Gone,
            watch: None,
        }
    }

    /// The write end, if it is held.
    pub(crate) fn write_end(&self) -> Option<&Fd> {
        match &self.end {
            End::Awaiting(fd) | End::Attached(fd) => Some(fd),
            End::Unopened | End::HalfOpen { .. } | End::Lost => None,
        }
    }

    pub(crate) fn is_unopened(&self) -> bool {
        matches!(self.end, End::Unopened | End::HalfOpen { .. })
    }

    /// Whether [`Fifo::await_script`] failed half way.
    pub(crate) fn is_half_open(&self) -> bool {
        matches!(self.end, End::HalfOpen { .. })
    }

    /// Opens the write end if a script is there to read.
    ///
    /// # Errors
    ///
    /// `ENXIO`: no script is known to have it open yet. `EMFILE` and the like: try again later.
    pub(crate) fn attach(&mut self, dir: &ControlDir) -> nix::Result<()> {
        self.check_name(dir);
        self.attach_new(dir)
    }

    /// To open what has become another's name would let its script through, to no result.
    fn check_name(&mut self, dir: &ControlDir) {
        let is_anothers = || match dir.stat(&self.name) {
            Ok(stat) => stat.file != self.file,
            // Any other error may pass, and says nothing.
            Err(errno) => errno == Errno::ENOENT,
        };
        if self.is_unopened() && is_anothers() {
            self.end = End::Lost;
        }
    }

    /// [`Fifo::attach`] for one that was found by its name a moment ago.
    pub(crate) fn attach_new(&mut self, dir: &ControlDir) -> nix::Result<()> {
        match self.end {
            End::Unopened => {}
            End::HalfOpen { .. } => return Err(Errno::ENXIO),
            End::Awaiting(_) | End::Attached(_) | End::Lost => return Ok(()),
        }
        self.end = match sys::open_fifo(dir.fd(), &self.name, self.file, OFlag::O_WRONLY) {
            Ok(Some(fd)) => End::Attached(fd),
            Ok(None) => End::Lost,
            Err(errno) if errno == Errno::ENXIO || is_passing(errno) => return Err(errno),
            // The name has become another thing's, or the FIFO is another user's.
            Err(_) => End::Lost,
        };
        Ok(())
    }

    /// Opens the write end although [`Fifo::attach`] found no script, so that its open will not block
    /// and will be seen. Where the kernel has no more watches, [`Fifo::reader`] must be asked from time
    /// to time.
    ///
    /// # Errors
    ///
    /// `EMFILE` and the like: try again later.
    pub(crate) fn await_script(&mut self, dir: &ControlDir, watch: &mut Watch) -> nix::Result<()> {
        let seen = matches!(self.end, End::HalfOpen { seen: true, .. });
        if self.watch.is_none() && !seen {
            // From before the script can open it: one that dies before its open can be watched for
            // is seen to close it.
            self.watch = watch.watch_close(dir, &self.name).ok();
        }
        self.hold_open(dir)?;
        let opened = match &self.end {
            // Only now, so that every open that is reported is the script's.
            End::Awaiting(writer) => watch.watch_open(writer).ok(),
            // The script has been seen, or the name had become another's: so is what was watched
            // by it.
            _ => None,
        };
        if opened != self.watch
            && let Some(other) = std::mem::replace(&mut self.watch, opened)
        {
            watch.unwatch(other);
        }
        Ok(())
    }

    fn hold_open(&mut self, dir: &ControlDir) -> nix::Result<()> {
        let open = |access| match sys::open_fifo(dir.fd(), &self.name, self.file, access) {
            Err(errno) if is_passing(errno) => Err(errno),
            opened => Ok(opened.ok().flatten()),
        };
        let (own_reader, seen) = match std::mem::replace(&mut self.end, End::Unopened) {
            End::HalfOpen { own_reader, seen } => (own_reader, seen),
            _ => {
                self.own_reader = OwnReader::Open(Instant::now());
                let Some(fd) = open(OFlag::O_RDWR)? else {
                    self.end = End::Lost;
                    return Ok(());
                };
                let _ = sys::try_lock(fd.as_fd(), Lock::Shared);
                (fd, false)
            }
        };
        self.end = match open(OFlag::O_WRONLY) {
            Ok(Some(writer)) if seen => End::Attached(writer),
            Ok(Some(writer)) => End::Awaiting(writer),
            Ok(None) => End::Lost,
            Err(errno) => {
                self.end = End::HalfOpen { own_reader, seen };
                return Err(errno);
            }
        };
        Ok(())
    }

    /// Notes that the script has opened its FIFO. Returns the watch that is no longer needed.
    pub(crate) fn opened(&mut self) -> Option<WatchDescriptor> {
        self.end = match std::mem::replace(&mut self.end, End::Lost) {
            End::Awaiting(fd) => End::Attached(fd),
            End::HalfOpen { own_reader, .. } => {
                let seen = true;
                End::HalfOpen { own_reader, seen }
            }
            other => {
                self.end = other;
                return None;
            }
        };
        self.take_watch()
    }

    /// The watch of this FIFO, if there is one.
    pub(crate) fn watch(&self) -> Option<&WatchDescriptor> {
        self.watch.as_ref()
    }

    /// Gives up the watch of this FIFO, for its end.
    pub(crate) fn take_watch(&mut self) -> Option<WatchDescriptor> {
        self.watch.take()
    }

    /// Whether the FIFO is held open for a script that has not been seen to open it.
    pub(crate) fn is_awaiting(&self) -> bool {
        matches!(self.end, End::Awaiting(_))
    }

    /// Whether somebody reads the FIFO that is held open for its script.
    pub(crate) fn reader(&mut self) -> Reader {
        let unclear = self.may_have_own_reader();
        match self.write_end() {
            Some(fd) if !sys::has_no_reader(fd.as_fd()) => {
                if unclear {
                    Reader::Unclear
                } else {
                    Reader::Script
                }
            }
            _ => Reader::Nobody,
        }
    }

    fn may_have_own_reader(&mut self) -> bool {
        let (OwnReader::Open(_) | OwnReader::Closed(_), Some(fd)) =
            (self.own_reader, self.write_end())
        else {
            return false;
        };
        // In this order: when no copy is open, none comes back.
        let copy_is_open = sys::try_lock(fd.as_fd(), Lock::Exclusive) == Ok(false);
        let nobody = !copy_is_open && sys::has_no_reader(fd.as_fd());
        self.own_reader = match self.own_reader {
            _ if nobody => OwnReader::Gone,
            open if copy_is_open => open,
            OwnReader::Open(at) if at.elapsed() < STARTING => OwnReader::Gone,
            OwnReader::Closed(at) if at.elapsed() >= CLOSING => OwnReader::Gone,
            OwnReader::Closed(at) => OwnReader::Closed(at),
            _ => OwnReader::Closed(Instant::now()),
        };
        !matches!(self.own_reader, OwnReader::Gone)
    }

    /// Whether the script is known to be gone.
    pub(crate) fn is_abandoned(&self) -> bool {
        match &self.end {
            End::Unopened | End::HalfOpen { .. } | End::Awaiting(_) => false,
            End::Attached(fd) => sys::has_no_reader(fd.as_fd()),
            End::Lost => true,
        }
    }

    /// Writes as much as fits, without blocking.
    pub(crate) fn write(&mut self, data: &[u8]) -> Written {
        let unclear = self.may_have_own_reader();
        let fd = match &self.end {
            End::Unopened | End::HalfOpen { .. } => return Written::NotNow,
            End::Awaiting(_) => return Written::NotOpened,
            End::Lost => return Written::Nobody,
            End::Attached(_) if unclear => return Written::NotNow,
            End::Attached(fd) => fd.as_fd(),
        };
        if data.is_empty() && sys::has_no_reader(fd) {
            return Written::Nobody;
        }
        // One write only: a reader that keeps up must not keep everybody else from the lock.
        match sys::write_without_sigpipe(fd, data) {
            Ok(written) if written == data.len() => Written::All,
            Ok(written) => Written::Part(written),
            Err(Errno::EAGAIN) => Written::Part(0),
            Err(Errno::EPIPE) => Written::Nobody,
            Err(_) => Written::NotNow,
        }
    }

    /// Whether the name has not become another's.
    pub(crate) fn has_its_name(&self, dir: &ControlDir) -> bool {
        dir.stat(&self.name)
            .is_ok_and(|stat| stat.file == self.file)
    }

    /// Sets the mark that says the result is complete. For after the unlink and before the close.
    pub(crate) fn mark(&self, status: u8) {
        if let Some(fd) = self.write_end() {
            let _ = fchmod(&**fd, Mode::from_bits_truncate(mark(status)));
        }
    }

    /// Gives up what lets the script's open through, without closing it yet.
    pub(crate) fn into_end(self) -> Option<Fd> {
        match self.end {
            End::HalfOpen { own_reader: fd, .. } | End::Awaiting(fd) | End::Attached(fd) => {
                Some(fd)
            }
            End::Unopened | End::Lost => None,
        }
    }
}

/// Whether an open that failed like this may succeed later.
fn is_passing(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::EINTR
    )
}
