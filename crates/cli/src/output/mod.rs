//! What people see: tables, Go templates, units, times.

mod human;
mod json;
mod listing;
mod template;

pub(crate) use human::{ago, decimal_size, memory, short_id, title};
pub(crate) use json::indent;
pub(crate) use listing::{Listing, Row, align};
pub(crate) use template::Template;
