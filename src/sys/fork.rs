//! Whether this process is a forked child of the one that opened a composer.
//!
//! The kernel wipes one page in every child that gets its own memory, whoever made it: fork(3),
//! `_Fork`, or clone(2) itself, which run no fork handlers. So a look costs no system call.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

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
