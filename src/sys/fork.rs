//! Whether this process is a forked child of another that used the library, and what each process has
//! for itself.
//!
//! The kernel wipes one page in every child that gets its own memory, whoever made it: fork(3),
//! `_Fork`, or clone(2) itself, which run no fork handlers. So a look costs no system call.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// How many processes have stamped the page, this one's ancestors among them.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// A page of its own, with the generation of the process that stamped it last; 0 in a child that has
/// not. `None` where the kernel would not wipe it (before Linux 4.14, or an emulator): then only the
/// fork handlers tell.
static PAGE: OnceLock<Option<&'static AtomicU32>> = OnceLock::new();

/// Stands in for the page where there is none.
static WITHOUT_PAGE: AtomicU32 = AtomicU32::new(0);

fn stamp() -> &'static AtomicU32 {
    PAGE.get_or_init(wiped_on_fork).unwrap_or(&WITHOUT_PAGE)
}

fn wiped_on_fork() -> Option<&'static AtomicU32> {
    let length = 4096;
    // SAFETY: a fresh private mapping, which nothing else points to. It is never unmapped, is
    // aligned to a page, and zeroed, which is a valid AtomicU32.
    unsafe {
        let page = libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if page == libc::MAP_FAILED {
            return None;
        }
        if libc::madvise(page, length, libc::MADV_WIPEONFORK) != 0 {
            libc::munmap(page, length);
            return None;
        }
        Some(&*page.cast::<AtomicU32>())
    }
}

/// A number for this process, never 0 and never an ancestor's.
pub(crate) fn generation() -> u32 {
    let stamp = stamp();
    // Several threads may open their first composer at once, also in a child.
    loop {
        let now = stamp.load(Ordering::Relaxed);
        if now != 0 {
            return now;
        }
        let next = GENERATION.fetch_add(1, Ordering::Relaxed) + 1;
        let _ = stamp.compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Whether this is the process that got `generation`.
pub(crate) fn is_generation(generation: u32) -> bool {
    stamp().load(Ordering::Relaxed) == generation
}

/// For the fork handler of the child.
pub(super) fn this_is_a_child() {
    stamp().store(0, Ordering::Relaxed);
}

/// A value of which each process has its own. A forked child makes a fresh one when it first asks, so
/// that it never meets a lock that a thread of its parent held.
pub(crate) struct PerProcess<T> {
    newest: AtomicPtr<Made<T>>,
}

struct Made<T> {
    generation: u32,
    value: T,
    /// The parent process'. Never freed, since nobody knows who was using it.
    _inherited: *mut Made<T>,
}

impl<T: Default + Send + Sync + 'static> PerProcess<T> {
    pub(crate) const fn new() -> PerProcess<T> {
        PerProcess {
            newest: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    pub(crate) fn get(&'static self) -> &'static T {
        // SAFETY: NULL, or made below and never freed.
        match unsafe { self.newest.load(Ordering::Acquire).as_ref() } {
            Some(made) if is_generation(made.generation) => &made.value,
            _ => self.make(),
        }
    }

    #[cold]
    fn make(&'static self) -> &'static T {
        super::close_on_fork();
        let generation = generation();
        loop {
            let newest = self.newest.load(Ordering::Acquire);
            // SAFETY: NULL, or made below and never freed.
            match unsafe { newest.as_ref() } {
                Some(made) if made.generation == generation => return &made.value,
                _ => {}
            }
            let made = Box::into_raw(Box::new(Made {
                generation,
                value: T::default(),
                _inherited: newest,
            }));
            let published =
                self.newest
                    .compare_exchange(newest, made, Ordering::AcqRel, Ordering::Relaxed);
            if published.is_err() {
                // SAFETY: made above, and shown to nobody.
                drop(unsafe { Box::from_raw(made) });
            }
        }
    }
}

/// A value that the first to set it sets for good, also for the children that are forked later.
/// Without a lock, which a fork could leave locked in the child.
pub(crate) struct SetOnce<T> {
    value: AtomicPtr<T>,
}

impl<T: Send + Sync + 'static> SetOnce<T> {
    pub(crate) const fn new() -> SetOnce<T> {
        SetOnce {
            value: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    pub(crate) fn get(&'static self) -> Option<&'static T> {
        // SAFETY: NULL, or made below and never freed.
        unsafe { self.value.load(Ordering::Acquire).as_ref() }
    }

    pub(crate) fn set(&'static self, value: impl FnOnce() -> T) {
        if self.get().is_some() {
            return;
        }
        let value = Box::into_raw(Box::new(value()));
        let none = std::ptr::null_mut();
        let published =
            self.value
                .compare_exchange(none, value, Ordering::AcqRel, Ordering::Relaxed);
        if published.is_err() {
            // SAFETY: made above, and shown to nobody.
            drop(unsafe { Box::from_raw(value) });
        }
    }
}
