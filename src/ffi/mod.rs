//! The C ABI: types, functions, and the boundary that every call passes.

mod boundary;
mod functions;
mod sdk;
mod types;
