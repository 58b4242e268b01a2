//! A look as text, and the screen that it is on.

use std::io::Write as _;

use super::look::{Counted, Look, Rates};
use crate::commands::mesh::task_name;
use crate::output::{Listing, Row, decimal_size};
use crate::session::Session;

/// The lines of a look.
pub(super) fn lines(look: &Look, whole: bool) -> Vec<String> {
    let time = look.at.get(11..19).unwrap_or_default();
    let mut lines = vec![format!(
        "{} at {time} UTC, over {:.1} s: {} members alive, {} down",
        look.node, look.seconds, look.members_alive, look.members_down
    )];
    lines.extend([summary("drops", &look.drops), summary("events", &look.events), fill(look), String::new()]);
    let table = Listing {
        columns: &[
            ("Port", "PORT"),
            ("Service", "SERVICE"),
            ("Node", "NODE"),
            ("State", "STATE"),
            ("Flows", "FLOWS"),
            ("New", "NEW/S"),
            ("Packets", "PACKETS/S IN, OUT"),
            ("Bytes", "BYTES/S IN, OUT"),
        ],
        further: &[],
        rows: rows(look, whole),
    };
    // Without a template nothing can be wrong with it.
    lines.extend(table.render(None).unwrap_or_default().lines().map(str::to_owned));
    lines
}

fn rows(look: &Look, whole: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for port in &look.ports {
        let mut row =
            vec![("Port", port.name.clone()), ("Service", port.service.clone()), ("State", port.state.clone())];
        row.extend(cells(port.open_flows, &port.rates));
        rows.push(row);
        for backend in &port.backends {
            let mut row = vec![
                ("Port", format!("  {}", task_name(&backend.task, whole))),
                ("Node", backend.node.clone()),
                ("State", backend.state.clone()),
            ];
            row.extend(cells(backend.open_flows, &backend.rates));
            rows.push(row);
        }
    }
    rows
}

fn cells(flows: i64, rates: &Rates) -> Row {
    vec![
        ("Flows", flows.to_string()),
        ("New", number(rates.flows)),
        ("Packets", format!("{}, {}", number(rates.packets_in), number(rates.packets_out))),
        ("Bytes", format!("{}, {}", bytes(rates.bytes_in), bytes(rates.bytes_out))),
    ]
}

/// One decimal below a hundred.
fn number(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        rate if rate < 100.0 => format!("{rate:.1}"),
        rate => format!("{rate:.0}"),
    }
}

fn bytes(rate: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "casts from floats saturate")]
    let whole = rate.round() as i64;
    decimal_size(whole)
}

/// What has been counted at all.
fn summary(what: &str, counts: &[Counted]) -> String {
    let some = counts.iter().filter(|c| c.total > 0);
    let texts: Vec<_> = some.map(|c| format!("{} {} ({}/s)", c.name, c.total, number(c.rate))).collect();
    if texts.is_empty() { format!("{what}: none") } else { format!("{what}: {}", texts.join(", ")) }
}

fn fill(look: &Look) -> String {
    let percent = |used: i64, room: i64| used.saturating_mul(100).checked_div(room).unwrap_or(0);
    let text = |(map, used, room): &(String, i64, i64)| format!("{map} {used} ({} %)", percent(*used, *room));
    let texts: Vec<_> = look.maps.iter().map(text).collect();
    if texts.is_empty() { "maps: not told".to_owned() } else { format!("maps: {}", texts.join(", ")) }
}

/// What has been drawn.
#[derive(Debug, Default)]
pub(super) struct Screen {
    drawn: bool,
}

impl Screen {
    /// Draws over what was there on a terminal; elsewhere, one block after the other.
    pub(super) fn draw(&mut self, session: &mut Session, lines: &[String], once: bool) -> anyhow::Result<()> {
        if once || !session.tty {
            if self.drawn {
                session.line("")?;
            }
            for line in lines {
                session.line(line)?;
            }
        } else {
            let (width, height) = terminal_size::terminal_size().map_or((80, 24), |(w, h)| (w.0.into(), h.0.into()));
            session.out.write_all(frame(lines, width, height, self.drawn).as_bytes())?;
        }
        self.drawn = true;
        Ok(session.out.flush()?)
    }

    /// Says below what was drawn last why there is nothing newer.
    pub(super) fn lament(&mut self, session: &mut Session, why: &str) -> anyhow::Result<()> {
        write!(session.out, "\r\x1b[K{why} (trying again)")?;
        Ok(session.out.flush()?)
    }
}

/// A frame of a terminal: what does not fit is cut off, never wrapped.
fn frame(lines: &[String], width: usize, height: usize, over: bool) -> String {
    let mut out = String::from(if over { "\x1b[H" } else { "\x1b[2J\x1b[H" });
    let room = height.saturating_sub(1);
    for line in lines.iter().take(room) {
        out.extend(line.chars().take(width));
        out.push_str("\x1b[K\r\n");
    }
    out.push_str("\x1b[J");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_its_terminal() {
        let lines: Vec<_> = (0..50).map(|n| format!("{n} {}", "x".repeat(200))).collect();
        let frame = frame(&lines, 40, 10, true);
        let shown: Vec<_> = frame.split("\r\n").collect();
        assert_eq!(shown.len(), 10);
        assert!(shown[8].starts_with("8 xxx") && shown[8].len() == 40 + "\x1b[K".len(), "{:?}", shown[8]);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 0.25, 99.0, 1234.5].map(number), ["0", "0.2", "99.0", "1234"]);
        assert_eq!(bytes(1_230_000.0), "1.23MB");
    }
}
