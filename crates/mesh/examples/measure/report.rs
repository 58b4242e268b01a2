//! What is printed, and written into the documentation.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::figures::Samples;
use crate::memory::Memory;
use crate::{Args, svg, tables};

/// The section of the page that is written anew lies between these.
const BEGIN: &str = "<!-- written by cargo xtask bench mesh -->";
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
        let old = fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        let parts = old.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
        let (before, after) = parts.unwrap_or_else(|| {
            panic!("{} has no section between {BEGIN:?} and {END:?}: put the lines there", page.display())
        });
        let picture = page.with_extension("svg");
        let name = picture.file_name().unwrap().to_string_lossy();
        fs::write(&picture, svg::draw(&self.samples, &self.about())).unwrap();
        fs::write(page, format!("{before}{BEGIN}\n{}{END}{after}", self.markdown(Some(&name)))).unwrap();
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
