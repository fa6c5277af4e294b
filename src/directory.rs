//! The control directory: who may own it, what belongs in it, and everything done in it by name.

use crate::error::{Error, ErrorKind};
use crate::protocol::{ALIVE, LOCK, NEW, RESULT_PREFIX, result_name};
use crate::sys::{self, Fd, Lock, Stat};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::signal::kill;
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{Pid, UnlinkatFlags, mkfifoat, unlinkat};
use std::ffi::{CStr, CString};
use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The control directory, held by a descriptor: a path that is renamed or replaced meanwhile never
/// leads anything done here into another directory.
#[derive(Debug)]
pub(crate) struct ControlDir {
    path: PathBuf,
    fd: Fd,
    /// `.new` in it, once it is made.
    new: OnceLock<Fd>,
    shared: bool,
}

/// How long an owner that is gone is given to let go of the lock: a process that it was starting
/// when it died has a copy until it executes its program.
const DEAD_OWNER: Duration = Duration::from_secs(1);

/// How a directory is opened: as itself, never through a link.
const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// The lock on a control directory.
#[derive(Debug)]
pub(crate) struct DirLock(Fd);

impl Drop for DirLock {
    fn drop(&mut self) {
        // Closing alone would leave it to copies in processes that are being started.
        sys::unlock(self.0.as_fd());
    }
}

/// What was found in the control directory at opening.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// FIFOs of scripts, oldest first.
    pub(crate) fifos: Vec<(CString, Stat)>,
    /// Files of an earlier harness and its clients.
    pub(crate) stale: Vec<CString>,
}

impl ControlDir {
    /// Opens the directory, and creates it and its parents where they are missing.
    pub(crate) fn open(path: &Path, shared: bool) -> Result<ControlDir, Error> {
        let path = without_trailing_slashes(path);
        let refuse = |why: String| {
            Error::new(
                ErrorKind::Directory,
                format!("cannot use {} as control directory: {why}", path.display()),
            )
        };
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => {
                return Err(refuse(
                    "it is a symbolic link; name the directory that it points to".into(),
                ));
            }
            Ok(found) if !found.is_dir() => return Err(refuse("it is not a directory".into())),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|error| refuse(format!("it cannot be created: {error}")))?,
            Err(error) => return Err(refuse(error.to_string())),
        }
        let fd = Fd::open(|| nix::fcntl::open(&path, DIRECTORY, Mode::empty()))
            .map_err(|errno| refuse(format!("it cannot be opened: {}", errno.desc())))?;
        let stat = nix::sys::stat::fstat(&*fd).map_err(|errno| refuse(errno.desc().into()))?;
        let me = nix::unistd::geteuid().as_raw();
        if stat.st_uid != me {
            return Err(refuse(format!(
                "it belongs to user {}, and this process runs as user {me}",
                stat.st_uid
            )));
        }
        if !shared && stat.st_mode & 0o022 != 0 {
            return Err(refuse(format!(
                "others may write to it (mode {:03o}); chmod go-w it, or open it with the option \
                 \"shared\"",
                stat.st_mode & 0o777
            )));
        }
        Ok(ControlDir {
            path,
            fd,
            new: OnceLock::new(),
            shared,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A path that leads to this very directory, whatever became of its name.
    pub(crate) fn path_by_fd(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd()).into()
    }

    /// The error for a system call on `name` in this directory.
    pub(crate) fn error(&self, doing: &str, name: &str, errno: impl Into<std::io::Error>) -> Error {
        Error::new(
            ErrorKind::Io,
            format!(
                "cannot {doing} {}: {}",
                self.path.join(name).display(),
                errno.into()
            ),
        )
    }

    /// Makes this process the directory's only harness, for as long as the lock lives.
    pub(crate) fn lock(&self) -> Result<DirLock, Error> {
        let flags = OFlag::O_RDWR
            | OFlag::O_CREAT
            | OFlag::O_NOFOLLOW
            | OFlag::O_NONBLOCK
            | OFlag::O_CLOEXEC;
        let failed = |errno: Errno| self.error("lock", LOCK, errno);
        let mode = Mode::from_bits_truncate(0o600);
        let fd = Fd::open(|| openat(self.fd(), LOCK, flags, mode)).map_err(failed)?;
        let deadline = Instant::now() + DEAD_OWNER;
        while !sys::try_lock(fd.as_fd(), Lock::Exclusive).map_err(failed)? {
            let mut text = [0; 32];
            let length = nix::sys::uio::pread(&*fd, &mut text, 0).unwrap_or(0);
            let pid = String::from_utf8_lossy(&text[..length]);
            let owner = pid.trim().parse().ok().map(Pid::from_raw);
            let is_dead = owner.is_some_and(|pid| kill(pid, None) == Err(Errno::ESRCH));
            if is_dead && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            let owner = owner.map_or("another process".into(), |pid| format!("process {pid}"));
            return Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "{} is in use by another harness ({owner}); stop it, or use another directory",
                    self.path.display()
                ),
            ));
        }
        let lock = DirLock(fd);
        let pid = format!("{}\n", std::process::id());
        nix::unistd::ftruncate(&*lock.0, 0)
            .and_then(|()| nix::unistd::write(&*lock.0, pid.as_bytes()))
            .map_err(|errno| self.error("write", LOCK, errno))?;
        Ok(lock)
    }

    /// Names in the directory, in no order.
    pub(crate) fn names(&self) -> nix::Result<Vec<CString>> {
        list(self.fd(), c".")
    }

    pub(crate) fn stat(&self, name: &CStr) -> nix::Result<Stat> {
        sys::stat_at(self.fd(), name)
    }

    /// Sorts what is in the directory, and refuses what is not of the protocol.
    pub(crate) fn contents(&self) -> Result<Contents, Error> {
        let unreadable = |errno: Errno| self.error("list", "", errno);
        let foreign = |name: &CStr| {
            Error::new(
                ErrorKind::Foreign,
                format!(
                    "{} is not of this library, so nothing in the control directory was touched; \
                     move it away, or use another directory",
                    self.path
                        .join(std::ffi::OsStr::from_bytes(name.to_bytes()))
                        .display()
                ),
            )
        };
        let mut contents = Contents::default();
        for name in self.names().map_err(unreadable)? {
            let stat = match self.stat(&name) {
                Ok(stat) => stat,
                Err(Errno::ENOENT) => continue,
                Err(errno) => return Err(unreadable(errno)),
            };
            let bytes = name.to_bytes();
            if bytes == ALIVE.as_bytes() && stat.is_fifo() {
                contents.stale.push(name);
            } else if stat.is_fifo() {
                contents.fifos.push((name, stat));
            } else if bytes.starts_with(RESULT_PREFIX.as_bytes()) && stat.is_regular() {
                contents.stale.push(name);
            } else if bytes == NEW.as_bytes() && stat.is_dir() {
                for inner in list(self.fd(), &name).map_err(unreadable)? {
                    let inner = c_name(&[name.to_bytes(), b"/", inner.to_bytes()].concat());
                    match self.stat(&inner) {
                        Ok(stat) if stat.is_fifo() || stat.is_regular() => {}
                        Err(Errno::ENOENT) => {}
                        _ => return Err(foreign(&inner)),
                    }
                }
            } else if !(bytes == LOCK.as_bytes() && stat.is_regular()) {
                return Err(foreign(&name));
            }
        }
        contents.fifos.sort_by_key(|(_, stat)| stat.ctime_ns);
        Ok(contents)
    }

    /// Makes the directory where clients prepare their FIFOs, and empties it.
    pub(crate) fn make_new(&self) -> Result<(), Error> {
        let failed = |errno: Errno| self.error("create", NEW, errno);
        let mode = Mode::from_bits_truncate(if self.shared { 0o777 } else { 0o700 });
        match mkdirat(self.fd(), NEW, mode) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let new = Fd::open(|| openat(self.fd(), NEW, DIRECTORY, Mode::empty())).map_err(failed)?;
        if self.shared {
            // The umask does not know that this directory is shared.
            fchmod(&*new, mode).map_err(failed)?;
        }
        let _ = self.new.set(new);
        self.empty_new();
        Ok(())
    }

    /// By its descriptor: in a shared directory the name may be replaced by others.
    fn new_dir(&self) -> BorrowedFd<'_> {
        self.new.get().expect("made at opening").as_fd()
    }

    fn empty_new(&self) {
        for name in list(self.new_dir(), c".").unwrap_or_default() {
            let _ = unlinkat(self.new_dir(), name.as_c_str(), UnlinkatFlags::NoRemoveDir);
        }
    }

    /// Tells clients that a harness lives: puts a fresh FIFO in place, and returns its write end,
    /// by which they see it die.
    pub(crate) fn publish_alive(&self) -> Result<Fd, Error> {
        let failed = |errno: Errno| self.error("create", ALIVE, errno);
        let fresh = c"alive";
        let mode = self.file_mode();
        mkfifoat(self.new_dir(), fresh, mode).map_err(failed)?;
        let file = sys::stat_at(self.new_dir(), fresh).map_err(failed)?.file;
        let open = |access| {
            sys::open_fifo(self.new_dir(), fresh, file, access)
                .and_then(|fd| fd.ok_or(Errno::ENOENT))
                .map_err(failed)
        };
        // A FIFO opens for writing without blocking only while someone reads it.
        let reader = open(OFlag::O_RDONLY)?;
        let writer = open(OFlag::O_WRONLY)?;
        drop(reader);
        fchmod(&*writer, mode).map_err(failed)?;
        renameat(self.new_dir(), fresh, self.fd(), ALIVE).map_err(failed)?;
        Ok(writer)
    }

    /// For what clients read.
    fn file_mode(&self) -> Mode {
        Mode::from_bits_truncate(if self.shared { 0o644 } else { 0o600 })
    }

    /// Removes a name; one that is gone already is no error.
    pub(crate) fn remove(&self, name: &CStr) {
        let _ = unlinkat(self.fd(), name, UnlinkatFlags::NoRemoveDir);
    }

    /// Tells clients that come now that there is no harness.
    pub(crate) fn unpublish_alive(&self) {
        self.remove(&c_name(ALIVE.as_bytes()));
    }

    /// Removes what this harness keeps in the directory while it lives. Results stay: a script may
    /// still be about to read its own.
    pub(crate) fn remove_ours(&self) {
        self.empty_new();
        let _ = unlinkat(self.fd(), NEW, UnlinkatFlags::RemoveDir);
    }

    /// Puts the result of the FIFO `name` into its file, whole or not at all.
    pub(crate) fn write_result(&self, name: &CStr, data: &[u8]) -> Result<(), Error> {
        let result = c_name(&result_name(name.to_bytes()));
        let mode = self.file_mode();
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let remove = || {
            unlinkat(
                self.new_dir(),
                result.as_c_str(),
                UnlinkatFlags::NoRemoveDir,
            )
        };
        let _ = remove();
        let written = openat(self.new_dir(), result.as_c_str(), flags, mode)
            .map_err(std::io::Error::from)
            .and_then(|fd| File::from(fd).write_all(data))
            .and_then(|()| {
                renameat(
                    self.new_dir(),
                    result.as_c_str(),
                    self.fd(),
                    result.as_c_str(),
                )
                .map_err(Into::into)
            });
        written.map_err(|error| {
            let _ = remove();
            self.error("write", &result.to_string_lossy(), error)
        })
    }

    /// Removes the result of a script that is not there to read it.
    pub(crate) fn remove_result(&self, name: &CStr) {
        self.remove(&c_name(&result_name(name.to_bytes())));
    }

    /// Whether the path by which clients come still leads here.
    pub(crate) fn is_in_place(&self) -> bool {
        let Ok(held) = nix::sys::stat::fstat(&*self.fd) else {
            return false;
        };
        std::fs::metadata(&self.path)
            .is_ok_and(|found| found.dev() == held.st_dev && found.ino() == held.st_ino)
    }
}

/// Names in the directory `sub` of a directory.
fn list(dir: BorrowedFd<'_>, sub: &CStr) -> nix::Result<Vec<CString>> {
    let mut listing = Fd::open_as(
        || nix::dir::Dir::openat(dir, sub, DIRECTORY, Mode::empty()),
        AsRawFd::as_raw_fd,
    )?;
    let mut names = Vec::new();
    for entry in listing.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn c_name(name: &[u8]) -> CString {
    CString::new(name).expect("names come from the kernel or from this library, without NUL")
}

/// A link under a path with a trailing slash would be followed.
fn without_trailing_slashes(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    let end = bytes.iter().rposition(|&byte| byte != b'/');
    match end {
        Some(end) => std::ffi::OsStr::from_bytes(&bytes[..=end]).into(),
        None => path.into(),
    }
}
