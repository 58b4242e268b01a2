//! What is printed, and written into the documentation.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::figures::Samples;
use crate::memory::Memory;
use crate::{Args, svg, tables};

/// The sections of the page that are written anew begin so,
const BEGIN: &str = "<!-- written by cargo xtask bench mesh -->";
const BEGIN_TALKS: &str = "<!-- written by cargo xtask bench networks -->";
/// and end so.
const END: &str = "<!-- end of what it writes -->";

/// Everything that was found.
pub(crate) struct Report<'a> {
    pub(crate) args: &'a Args,
    pub(crate) samples: Samples,
    pub(crate) memory: Vec<Memory>,
    pub(crate) took: Duration,
}

impl Report<'_> {
    /// The section. `picture` is what it is called beside the page.
    pub(crate) fn markdown(&self, picture: Option<&str>) -> String {
        let mut text = format!("{}\n", self.about());
        if let Some(picture) = picture {
            text.push_str(&format!("\n![Shares of the direct path's figures]({picture})\n"));
        }
        let parts = [
            ("The ratios that skep is built for", tables::aims(&self.samples)),
            ("Every path", tables::paths(&self.samples)),
            ("Every way", tables::talks(&self.samples)),
            ("With more services published", tables::services(&self.samples)),
            ("What others' traffic pays", tables::others(&self.samples)),
            ("Memory of the maps", tables::memory(&self.memory)),
        ];
        for (title, table) in parts.iter().filter(|(_, table)| !table.is_empty()) {
            text.push_str(&format!("\n### {title}\n\n{table}"));
        }
        text
    }

    /// Puts the section into the page, and the picture beside it.
    pub(crate) fn write(&self, page: &Path) {
        let picture = page.with_extension("svg");
        let name = picture.file_name().unwrap().to_string_lossy();
        fs::write(&picture, svg::draw(&self.samples, &self.about())).unwrap();
        renew(page, BEGIN, &self.markdown(Some(&name)));
    }

    /// Puts the section on tasks that talk to each other into the page.
    pub(crate) fn write_talks(&self, page: &Path) {
        renew(page, BEGIN_TALKS, &self.markdown(None));
    }

    /// The machine and the run.
    fn about(&self) -> String {
        let Args { rounds, seconds, rate, .. } = self.args;
        let cores = std::thread::available_parallelism().unwrap();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap();
        let model = cpuinfo
            .lines()
            .find_map(|l| l.strip_prefix("model name")?.split_once(": "))
            .map_or("processor", |(_, m)| m);
        let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
        let minutes = self.took.as_secs_f64() / 60.0;
        format!(
            "{cores} cores ({model}), Linux {release}; {rounds} rounds of {seconds} s per figure, fixed rate {rate}/s, {minutes:.0} minutes."
        )
    }
}

/// Replaces what is between `begin` and the next end.
fn renew(page: &Path, begin: &str, section: &str) {
    let old = fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let parts = old.split_once(begin).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.unwrap_or_else(|| {
        panic!("{} has no section between {begin:?} and {END:?}: put the lines there", page.display())
    });
    fs::write(page, format!("{before}{begin}\n{section}{END}{after}")).unwrap();
}
