//! The picture: a bar per path and figure, as long as its share of the direct path's. Text and lines take the colours of the reader's
//! scheme, light or dark.

use std::fmt::Write as _;

use crate::figures::{Figure, Samples};
use crate::plain;
use crate::tables::PATHS;

const FIGURES: [Figure; 5] =
    [Figure::Requests, Figure::Connections, Figure::BulkTo, Figure::BulkFrom, Figure::Datagrams];

/// Pixels.
const LABELS: f64 = 230.0;
const BARS: f64 = 130.0;
const VALUE: f64 = 34.0;
const PANEL: f64 = BARS + VALUE;
const GAP: f64 = 18.0;
const ROW: f64 = 26.0;
const BAR: f64 = 16.0;
const TOP: f64 = 64.0;
/// The share that the longest bar stands for.
const FULL: f64 = 1.15;

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600;font-size:14px}.quiet{fill:#59636e}\
    .value{text-anchor:end}.ours{fill:#bf6a02}.theirs{fill:#8c959f}.line{stroke:#59636e;stroke-dasharray:2 3}\
    @media(prefers-color-scheme:dark){text{fill:#f0f6fc}.quiet{fill:#9198a1}.ours{fill:#e8a33d}.theirs{fill:#656c76}.line{stroke:#9198a1}}";

/// Draws it. `about` says on what machine.
pub(crate) fn draw(samples: &Samples, about: &str) -> String {
    let paths: Vec<_> = PATHS.into_iter().filter(|path| samples.spread(path, Figure::Requests).is_some()).collect();
    let (width, height) = (LABELS + FIGURES.len() as f64 * (PANEL + GAP) - GAP, TOP + paths.len() as f64 * ROW + 34.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"Requests, connections, bulk and datagrams of each path as shares of the direct path's\">\n<style>{STYLE}</style>\n"
    );
    text(&mut svg, 0.0, 16.0, "title", "Share of what a client reaches without any load balancer (direct = 1)");
    for (n, path) in paths.iter().enumerate() {
        text(&mut svg, 0.0, middle(n) + 4.0, "", &path.replace('`', ""));
    }
    for (n, figure) in FIGURES.into_iter().enumerate() {
        panel(&mut svg, samples, LABELS + n as f64 * (PANEL + GAP), figure, &paths);
    }
    text(&mut svg, 0.0, height - 8.0, "quiet", about);
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, samples: &Samples, left: f64, figure: Figure, paths: &[&'static str]) {
    text(svg, left, TOP - 14.0, "quiet", figure.title());
    let one = left + BARS / FULL;
    let bottom = TOP + paths.len() as f64 * ROW;
    writeln!(svg, "<line class=\"line\" x1=\"{one:.1}\" x2=\"{one:.1}\" y1=\"{}\" y2=\"{bottom}\"/>", TOP - 6.0)
        .unwrap();
    for (n, path) in paths.iter().enumerate() {
        let Some(share) = samples.ratio(path, plain::DIRECT, figure) else {
            text(svg, left, middle(n) + 4.0, "quiet", "not carried");
            continue;
        };
        let length = share.median.min(FULL) * BARS / FULL;
        let class = if path.starts_with("skep") { "ours" } else { "theirs" };
        let top = middle(n) - BAR / 2.0;
        writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{left}\" y=\"{top}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\"/>"
        )
        .unwrap();
        text(svg, left + PANEL, middle(n) + 4.0, "value", &format!("{:.2}", share.median));
    }
}

fn middle(row: usize) -> f64 {
    TOP + row as f64 * ROW + ROW / 2.0
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>").unwrap();
}
