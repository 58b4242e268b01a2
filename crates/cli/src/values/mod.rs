//! The syntax of flags' values.

mod bytes;
mod command;
mod data_file;
mod duration;
mod mount;
mod pairs;
mod reltime;

pub(crate) use bytes::{parse_bytes, parse_cpus};
pub(crate) use command::split_command;
pub(crate) use data_file::{DataFile, parse_data_file};
pub(crate) use duration::{go_duration, parse_duration};
pub(crate) use mount::parse_mount;
pub(crate) use pairs::{env_file, filters, host_entry, key_value, parse_attachment, parse_generic, parse_ulimit};
pub(crate) use reltime::parse_time;
