//! `libvoidstar`, through which a program talks to Antithesis.

use std::ffi::{CStr, c_char, c_void};

/// Where Antithesis puts it, in every container of glibc. The official SDKs look here too.
const PATH: &CStr = c"/usr/lib/libvoidstar.so";

type JsonData = unsafe extern "C" fn(*const c_char, usize);
type GetRandom = unsafe extern "C" fn() -> u64;
type Flush = unsafe extern "C" fn();

pub(crate) struct Voidstar {
    json_data: JsonData,
    get_random: GetRandom,
    flush: Flush,
}

impl Voidstar {
    /// Loads it for the life of the process. `None` where it is not to be had: outside Antithesis, on
    /// musl, in a program that is linked statically.
    pub(crate) fn load() -> Option<Voidstar> {
        // SAFETY: `PATH` is NUL-terminated. What lies there is Antithesis' own, and made to be loaded
        // into any program.
        let library = unsafe { libc::dlopen(PATH.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if library.is_null() {
            return None;
        }
        let symbol = |name: &CStr| {
            // SAFETY: the library was loaded above, and is never unloaded.
            let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
            (!symbol.is_null()).then_some(symbol)
        };
        let json_data = symbol(c"fuzz_json_data")?;
        let get_random = symbol(c"fuzz_get_random")?;
        let flush = symbol(c"fuzz_flush")?;
        // SAFETY: these are the functions' types in Antithesis' published interface
        // (antithesis_instrumentation.h), and a function's address has the size of a pointer.
        unsafe {
            Some(Voidstar {
                json_data: std::mem::transmute::<*mut c_void, JsonData>(json_data),
                get_random: std::mem::transmute::<*mut c_void, GetRandom>(get_random),
                flush: std::mem::transmute::<*mut c_void, Flush>(flush),
            })
        }
    }

    /// Gives one line of JSON to Antithesis.
    pub(crate) fn json_data(&self, line: &str) {
        // SAFETY: `line` is readable for its length, and copied before the call returns. The functions
        // may be called from any thread, as every SDK does.
        unsafe {
            (self.json_data)(line.as_ptr().cast(), line.len());
            (self.flush)();
        }
    }

    pub(crate) fn random(&self) -> u64 {
        // SAFETY: it takes nothing, and may be called from any thread.
        unsafe { (self.get_random)() }
    }
}
