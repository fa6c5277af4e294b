//! The control directory: who may own it, what belongs in it, and everything done in it by name.

use crate::error::{Error, ErrorKind};
use crate::options::Results;
use crate::protocol::{ALIVE, ALIVE_RESULTS_IN_FILES, LOCK, NEW, RESULT_PREFIX, mark, result_name};
use crate::sys::{self, Fd, FileId, Stat};
use nix::errno::Errno;
use nix::fcntl::{OFlag, renameat};
use nix::sys::signal::kill;
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{Pid, UnlinkatFlags, mkfifoat, unlinkat};
use std::ffi::{CStr, CString, OsStr};
use std::fs::DirBuilder;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
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
    made: Made,
}

/// What was not there before, for an open that fails to take away again.
#[derive(Debug, Default)]
struct Made {
    /// The control directory and its parents, the outermost first.
    dirs: Vec<PathBuf>,
    lock: AtomicBool,
    new: AtomicBool,
}

/// How long an owner that is gone is given to let go of the lock: a process that it was starting
/// when it died has a copy until it executes its program.
const DEAD_OWNER: Duration = Duration::from_secs(1);

/// More than any pid with its newline.
const MOST_OF_A_LOCK: usize = 32;

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY);

/// The lock on a control directory.
#[derive(Debug)]
pub(crate) struct DirLock(Fd);

impl DirLock {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The lock by another descriptor of it, which is a copy of [`DirLock::fd`].
    pub(crate) fn by_copy(fd: Fd) -> DirLock {
        DirLock(fd)
    }

    /// Lets the next harness in, whoever has copies of the descriptor.
    pub(crate) fn unlock(&self) {
        sys::unlock(self.0.as_fd());
    }
}

/// What was found in the control directory at opening.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// FIFOs of commands, oldest first.
    pub(crate) fifos: Vec<(CString, Stat)>,
    /// Files of an earlier harness and its clients.
    pub(crate) stale: Vec<CString>,
}

impl ControlDir {
    /// Opens the directory, and creates it and its parents where they are missing.
    pub(crate) fn open(path: &Path, shared: bool) -> Result<ControlDir, Error> {
        // The host may change its working directory later.
        let path = std::path::absolute(without_trailing_slashes(path))
            .map_err(|error| cannot_use(path, &error.to_string()))?;
        let refuse = |why: &str| cannot_use(&path, why);
        let mut made = Made::default();
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => {
                return Err(refuse(
                    "it is a symbolic link; name the directory that it points to",
                ));
            }
            Ok(found) if !found.is_dir() => return Err(refuse("it is not a directory")),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                made.dirs = create_with_parents(&path)
                    .map_err(|error| refuse(&format!("it cannot be created: {error}")))?;
            }
            Err(error) => return Err(refuse(&error.to_string())),
        }
        let flags = DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = Fd::open(|| nix::fcntl::open(&path, flags, Mode::empty()))
            .map_err(|errno| refuse(&format!("it cannot be opened: {}", errno.desc())))
            .and_then(|fd| may_be_used(&path, &fd, shared).map(|()| fd));
        match opened {
            Ok(fd) => Ok(ControlDir {
                path,
                fd,
                new: OnceLock::new(),
                shared,
                made,
            }),
            Err(error) => {
                made.remove_dirs();
                Err(error)
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The descriptors behind this value, for a thread with an own table to keep.
    pub(crate) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let new = self.new.get().map(|fd| fd.as_fd());
        std::iter::once(self.fd()).chain(new).collect()
    }

    /// The error for a system call on `name` in this directory.
    pub(crate) fn error(
        &self,
        doing: &str,
        name: &CStr,
        cause: impl Into<std::io::Error>,
    ) -> Error {
        Error::new(
            ErrorKind::Io,
            format!("cannot {doing} {}: {}", self.shown(name), cause.into()),
        )
    }

    /// The path of a name in this directory, fit for a terminal.
    pub(crate) fn shown(&self, name: &CStr) -> String {
        let path = self.path.join(OsStr::from_bytes(name.to_bytes()));
        shown(path.as_os_str())
    }

    /// Makes this process the directory's only harness, for as long as the lock lives.
    pub(crate) fn lock(&self) -> Result<DirLock, Error> {
        let failed = |errno: Errno| self.error("lock", LOCK, errno);
        let deadline = Instant::now() + DEAD_OWNER;
        loop {
            let Some(fd) = self.open_lock()? else {
                continue;
            };
            if sys::try_lock(fd.as_fd()).map_err(failed)? {
                // An open that failed may have taken the file away in between.
                let locked = sys::stat_of(fd.as_fd()).map_err(failed)?.file;
                if self.stat(LOCK).is_ok_and(|stat| stat.file == locked) {
                    return Ok(DirLock(fd));
                }
                continue;
            }
            self.made.lock.store(false, Ordering::Relaxed);
            let owner = owner_of(&fd);
            let is_dead = owner.is_some_and(|pid| kill(pid, None) == Err(Errno::ESRCH));
            if is_dead && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            let owner = match owner {
                Some(pid) if is_dead => {
                    format!("process {pid} of another pid namespace, such as another container's")
                }
                Some(pid) => format!("process {pid}"),
                None => "another process".into(),
            };
            return Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "{} is in use by another harness ({owner}); stop it, or use another directory",
                    shown(self.path.as_os_str())
                ),
            ));
        }
    }

    /// Opens the lock, and makes it where it is missing; `None` when it came or went meanwhile.
    fn open_lock(&self) -> Result<Option<Fd>, Error> {
        let failed = |errno: Errno| self.error("lock", LOCK, errno);
        let owner = Mode::from_bits_truncate(0o600);
        let make = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        match sys::open_at(self.fd(), LOCK, make, owner) {
            Ok(fd) => {
                self.made.lock.store(true, Ordering::Relaxed);
                return Ok(Some(fd));
            }
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        self.made.lock.store(false, Ordering::Relaxed);
        match self.stat(LOCK) {
            // A second name may be anything's.
            Ok(stat) if stat.is_regular() && stat.links == 1 => {}
            Ok(_) => return Err(self.foreign(LOCK)),
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        }
        let fd = match sys::open_at(self.fd(), LOCK, OFlag::O_RDWR, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        };
        let stat = sys::stat_of(fd.as_fd()).map_err(failed)?;
        let mut text = [0; MOST_OF_A_LOCK];
        let length = nix::sys::uio::pread(&*fd, &mut text, 0).unwrap_or(0);
        let is_ours = stat.is_regular()
            && stat.links <= 1
            && text[..length]
                .iter()
                .all(|byte| byte.is_ascii_digit() || *byte == b'\n');
        if is_ours {
            Ok(Some(fd))
        } else {
            Err(self.foreign(LOCK))
        }
    }

    /// Puts this process' pid into the lock, when nothing foreign is in the directory.
    pub(crate) fn sign(&self, lock: &DirLock) -> Result<(), Error> {
        let pid = format!("{}\n", std::process::id());
        nix::unistd::ftruncate(&*lock.0, 0)
            .and_then(|()| nix::sys::uio::pwrite(&*lock.0, pid.as_bytes(), 0))
            .map_err(|errno| self.error("write", LOCK, errno))?;
        Ok(())
    }

    /// Takes away what this process made, for an open that fails. While it has the lock.
    pub(crate) fn undo(&self) {
        if self.made.new.load(Ordering::Relaxed) {
            let _ = unlinkat(self.fd(), NEW, UnlinkatFlags::RemoveDir);
        }
        if self.made.lock.load(Ordering::Relaxed) {
            self.remove(LOCK);
        }
        self.made.remove_dirs();
    }

    /// Names in the directory, in no order.
    pub(crate) fn names(&self) -> nix::Result<Vec<CString>> {
        list(self.fd(), c".")
    }

    pub(crate) fn stat(&self, name: &CStr) -> nix::Result<Stat> {
        sys::stat_at(self.fd(), name)
    }

    fn foreign(&self, name: &CStr) -> Error {
        Error::new(
            ErrorKind::Foreign,
            format!(
                "{} is not of this library, so nothing in the control directory was touched; move \
                 it away, or use another directory",
                self.shown(name)
            ),
        )
    }

    /// Sorts what is in the directory, and refuses what is not of the protocol.
    pub(crate) fn contents(&self) -> Result<Contents, Error> {
        let unreadable = |errno: Errno| self.error("list", c"", errno);
        let mut contents = Contents::default();
        for name in self.names().map_err(unreadable)? {
            let stat = match self.stat(&name) {
                Ok(stat) => stat,
                Err(Errno::ENOENT) => continue,
                Err(errno) => return Err(unreadable(errno)),
            };
            let is_stale = if *name == *ALIVE {
                stat.is_fifo()
            } else {
                stat.is_regular() && name.to_bytes().starts_with(RESULT_PREFIX)
            };
            if is_stale {
                contents.stale.push(name);
            } else if *name == *NEW && stat.is_dir() {
                self.check_new()?;
            } else if stat.is_fifo() && *name != *LOCK && *name != *NEW {
                contents.fifos.push((name, stat));
            } else if !(*name == *LOCK && stat.is_regular() && stat.links == 1) {
                return Err(self.foreign(&name));
            }
        }
        contents.fifos.sort_by_key(|(_, stat)| stat.ctime_ns);
        Ok(contents)
    }

    /// Refuses what does not belong into `.new`.
    fn check_new(&self) -> Result<(), Error> {
        let unreadable = |errno: Errno| self.error("list", NEW, errno);
        for inner in list(self.fd(), NEW).map_err(unreadable)? {
            let inner = c_name(&[NEW.to_bytes(), b"/", inner.to_bytes()].concat());
            match self.stat(&inner) {
                Ok(stat) if stat.is_fifo() || stat.is_regular() => {}
                Err(Errno::ENOENT) => {}
                _ => return Err(self.foreign(&inner)),
            }
        }
        Ok(())
    }

    /// Makes the directory where clients prepare their FIFOs, and empties it.
    pub(crate) fn make_new(&self) -> Result<(), Error> {
        let failed = |errno: Errno| self.error("create", NEW, errno);
        // Sticky where others write: nobody removes or replaces what another has in it.
        let mode = Mode::from_bits_truncate(if self.shared { 0o1777 } else { 0o700 });
        match mkdirat(self.fd(), NEW, mode) {
            Ok(()) => self.made.new.store(true, Ordering::Relaxed),
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let new = sys::open_at(self.fd(), NEW, DIRECTORY, Mode::empty()).map_err(failed)?;
        let found = sys::stat_of(new.as_fd()).map_err(failed)?;
        if found.owner != nix::unistd::geteuid().as_raw() {
            return Err(self.foreign(NEW));
        }
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
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Directory`]: the file system cannot carry the mark.
    pub(crate) fn publish_alive(&self, results: Results) -> Result<Fd, Error> {
        let failed = |errno: Errno| self.error("create", ALIVE, errno);
        let mode = match results {
            Results::Fifo => self.file_mode(),
            Results::File => self.file_mode() | Mode::from_bits_truncate(ALIVE_RESULTS_IN_FILES),
        };
        let staged = staged_name(ALIVE);
        mkfifoat(self.new_dir(), &*staged, mode).map_err(failed)?;
        let published = self.try_mark(&staged).and_then(|writer| {
            fchmod(&*writer, mode).map_err(failed)?;
            self.publish(&staged, writer.as_fd(), ALIVE)
                .map_err(failed)?;
            Ok(writer)
        });
        if published.is_err() {
            let _ = unlinkat(self.new_dir(), &*staged, UnlinkatFlags::NoRemoveDir);
        }
        published
    }

    /// Opens a FIFO in `.new` for writing, and sees whether it takes the mark.
    fn try_mark(&self, fifo: &CStr) -> Result<Fd, Error> {
        let failed = |errno: Errno| self.error("open", ALIVE, errno);
        let open = |access| sys::open_at(self.new_dir(), fifo, access, Mode::empty());
        // A FIFO opens for writing without blocking only while someone reads it.
        let reader = open(OFlag::O_RDONLY).map_err(failed)?;
        let writer = open(OFlag::O_WRONLY).map_err(failed)?;
        drop(reader);
        let tried = mark(0o252);
        let marked = fchmod(&*writer, Mode::from_bits_truncate(tried))
            .and_then(|()| sys::stat_of(writer.as_fd()));
        let why = match marked {
            Ok(stat) if stat.mode & 0o777 == tried => return Ok(writer),
            Ok(stat) => format!("fchmod({tried:o}) leaves {:o}", stat.mode & 0o777),
            Err(errno) => format!("fchmod says {errno}"),
        };
        let filesystem = filesystem_of(self.fd());
        Err(cannot_use(
            &self.path,
            &format!(
                "its file system ({filesystem}) does not keep the permission bits of a FIFO, which \
                 carry exit statuses ({why}); use a directory on tmpfs or another local file system"
            ),
        ))
    }

    /// Renames what was staged in `.new` into place, when it is still what was staged.
    fn publish(&self, staged: &CStr, file: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
        let ours = sys::stat_of(file)?.file;
        if sys::stat_at(self.new_dir(), staged)?.file != ours {
            return Err(Errno::ESTALE);
        }
        renameat(self.new_dir(), staged, self.fd(), name)
    }

    /// For what clients read.
    fn file_mode(&self) -> Mode {
        Mode::from_bits_truncate(if self.shared { 0o644 } else { 0o600 })
    }

    /// Removes a name. `false` when it is still there.
    pub(crate) fn remove(&self, name: &CStr) -> bool {
        matches!(
            unlinkat(self.fd(), name, UnlinkatFlags::NoRemoveDir),
            Ok(()) | Err(Errno::ENOENT)
        )
    }

    /// Removes a name if it is still this file's. `false` when it is still there, and may be.
    pub(crate) fn remove_if(&self, name: &CStr, file: FileId) -> bool {
        match self.stat(name) {
            Ok(stat) if stat.file == file => self.remove(name),
            Ok(_) | Err(Errno::ENOENT) => true,
            Err(_) => false,
        }
    }

    /// Tells clients that come now that there is no harness.
    pub(crate) fn unpublish_alive(&self) {
        self.remove(ALIVE);
    }

    /// Removes what this harness keeps in the directory while it lives. Results stay: a command may
    /// still be about to read its own.
    pub(crate) fn remove_ours(&self) {
        self.empty_new();
        let _ = unlinkat(self.fd(), NEW, UnlinkatFlags::RemoveDir);
    }

    /// Puts the result of the FIFO `name` into its file, whole or not at all.
    ///
    /// # Errors
    ///
    /// The sentence for it, and whether another attempt may succeed.
    pub(crate) fn write_result(&self, name: &CStr, result: &[u8]) -> Result<(), UnwrittenResult> {
        let to = result_name(name);
        let staged = staged_name(&to);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let written = sys::open_at(self.new_dir(), &staged, flags, self.file_mode())
            .map_err(std::io::Error::from)
            .and_then(|fd| {
                WriteTo(&fd).write_all(result)?;
                self.publish(&staged, fd.as_fd(), &to)?;
                Ok(())
            });
        written.map_err(|cause| {
            let _ = unlinkat(self.new_dir(), &*staged, UnlinkatFlags::NoRemoveDir);
            let may_pass = matches!(
                cause.raw_os_error().map(Errno::from_raw),
                Some(
                    Errno::ENOSPC
                        | Errno::EDQUOT
                        | Errno::EMFILE
                        | Errno::ENFILE
                        | Errno::ENOMEM
                        | Errno::EIO
                        | Errno::EAGAIN
                )
            );
            UnwrittenResult {
                error: self.error("write", &to, cause),
                may_pass,
            }
        })
    }

    /// Removes the result of a command that is not there to read it.
    pub(crate) fn remove_result(&self, name: &CStr) {
        self.remove(&result_name(name));
    }

    /// Whether the path by which clients come still leads here.
    pub(crate) fn is_in_place(&self) -> bool {
        let Ok(held) = nix::sys::stat::fstat(&*self.fd) else {
            return false;
        };
        match std::fs::metadata(&self.path) {
            Ok(found) => found.dev() == held.st_dev && found.ino() == held.st_ino,
            // Any other error may pass, and says nothing of where the path leads.
            Err(error) => !matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ),
        }
    }
}

/// A file to write to.
struct WriteTo<'a>(&'a Fd);

impl Write for WriteTo<'_> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        Ok(nix::unistd::write(&**self.0, data)?)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Why a result is not in its file.
pub(crate) struct UnwrittenResult {
    pub(crate) error: Error,
    /// Whether another attempt may succeed.
    pub(crate) may_pass: bool,
}

impl Made {
    fn remove_dirs(&self) {
        for dir in self.dirs.iter().rev() {
            let _ = std::fs::remove_dir(dir);
        }
    }
}

fn cannot_use(path: &Path, why: &str) -> Error {
    Error::new(
        ErrorKind::Directory,
        format!(
            "cannot use {} as control directory: {why}",
            shown(path.as_os_str())
        ),
    )
}

/// Refuses a directory in which others could do harm.
fn may_be_used(path: &Path, fd: &Fd, shared: bool) -> Result<(), Error> {
    let stat = sys::stat_of(fd.as_fd()).map_err(|errno| cannot_use(path, errno.desc()))?;
    let me = nix::unistd::geteuid().as_raw();
    let is_sticky = stat.mode & 0o1000 != 0;
    if stat.owner != me && !(shared && stat.owner == 0 && is_sticky) {
        let mut why = format!(
            "it belongs to user {}, and this process runs as user {me}; use a directory of its own, \
             such as {}/jepsen",
            stat.owner,
            shown(path.as_os_str())
        );
        if stat.owner == 0 && is_sticky {
            why += ", or open it with the option \"shared\"";
        }
        return Err(cannot_use(path, &why));
    }
    if !shared && stat.mode & 0o022 != 0 {
        return Err(cannot_use(
            path,
            &format!(
                "others may write to it (mode {:03o}); chmod go-w it, or open it with the option \
                 \"shared\"",
                stat.mode & 0o7777
            ),
        ));
    }
    Ok(())
}

/// Creates a directory for this user alone, and those on the way to it. Returns what it made.
fn create_with_parents(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let missing: Vec<PathBuf> = path
        .ancestors()
        .take_while(|ancestor| std::fs::symlink_metadata(ancestor).is_err())
        .map(Path::to_path_buf)
        .collect();
    let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
    let made = Made {
        dirs: missing.into_iter().rev().collect(),
        ..Made::default()
    };
    if created.is_err() {
        made.remove_dirs();
    }
    created.map(|()| made.dirs)
}

/// The pid in a lock.
fn owner_of(lock: &Fd) -> Option<Pid> {
    let mut text = [0; MOST_OF_A_LOCK];
    let length = nix::sys::uio::pread(&**lock, &mut text, 0).unwrap_or(0);
    let pid = std::str::from_utf8(&text[..length]).ok()?.trim();
    pid.parse().ok().map(Pid::from_raw)
}

/// Names in the directory `sub` of a directory.
fn list(dir: BorrowedFd<'_>, sub: &CStr) -> nix::Result<Vec<CString>> {
    let flags = DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut listing = Fd::open_as(
        || nix::fcntl::openat(dir, sub, flags, Mode::empty()),
        nix::dir::Dir::from_fd,
    )?;
    let listing = listing.as_mut().map_err(|errno| *errno)?;
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

/// A name in `.new` that nobody can have made before: others may write there.
fn staged_name(name: &CStr) -> CString {
    let random = RandomState::new().build_hasher().finish();
    // A result's name may be as long as a name can be.
    let kept = &name.to_bytes()[..name.to_bytes().len().min(200)];
    c_name(&[kept, format!(".{random:016x}").as_bytes()].concat())
}

/// A path or name, fit for a terminal: foreign ones may hold anything.
fn shown(path: &OsStr) -> String {
    match path.to_str() {
        Some(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => path.as_bytes().escape_ascii().to_string(),
    }
}

/// What a file system is called.
fn filesystem_of(dir: BorrowedFd<'_>) -> String {
    let Ok(stat) = nix::sys::statfs::fstatfs(dir) else {
        return "unknown".into();
    };
    let number = stat.filesystem_type().0;
    match number as u32 {
        0x6573_5546 => "FUSE".into(),
        0x6969 => "NFS".into(),
        0x0102_1997 => "9p".into(),
        0xff53_4d42 | 0xfe53_4d42 => "SMB".into(),
        0x794c_7630 => "overlayfs".into(),
        0x4d44 => "FAT".into(),
        0x2011_bab0 => "exFAT".into(),
        number => format!("type {number:#x}"),
    }
}

/// A link under a path with a trailing slash would be followed.
fn without_trailing_slashes(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    let end = bytes.iter().rposition(|&byte| byte != b'/');
    match end {
        Some(end) => OsStr::from_bytes(&bytes[..=end]).into(),
        None => path.into(),
    }
}
