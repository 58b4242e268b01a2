//! A real registry (Debian's docker-registry) in the client's place of a lab, which asks for a name and a password.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;

use crate::{Said, Swarm};

/// Who may pull and push.
const USER: &str = "ann";
/// That person's secret.
const PASSWORD: &str = "secret";
/// What the registry keeps of it (bcrypt).
const HASH: &str = "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";

/// The registry, until it is dropped.
pub struct Registry {
    /// `host:port`, as images are called by.
    pub addr: String,
    dir: PathBuf,
    process: Option<Child>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Registry {
    /// Starts one, and returns once it answers.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn start(swarm: &Swarm) -> Self {
        let dir = swarm.lab.dir().join("registry");
        fs::create_dir_all(&dir).expect("a directory");
        let addr = format!("{}:5000", swarm.lab.client_address());
        let (data, names, config) = (dir.join("data"), dir.join("htpasswd"), dir.join("config.yml"));
        fs::write(&names, format!("{USER}:{HASH}\n")).expect("a file");
        let text = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{addr}\"}}\n\
             auth: {{htpasswd: {{realm: lab, path: {}}}}}\n",
            data.display(),
            names.display()
        );
        fs::write(&config, text).expect("a file");
        let argv = ["docker-registry".to_owned(), "serve".to_owned(), config.display().to_string()];
        let mut command = swarm.lab.exec("client", &argv).expect("a place");
        let log = File::create(dir.join("log")).expect("a file");
        let process = command.stdout(log.try_clone().expect("a file")).stderr(log).spawn();
        let process = process.expect("docker-registry runs: tests/packages docker-registry");
        let registry = Self { addr, dir, process: Some(process) };
        let url = format!("http://{}/", registry.addr);
        swarm.until("the registry to answer", || swarm.get("client", &url).is_ok());
        registry
    }

    /// Pushes the image of an archive of `docker save`, called `name`.
    ///
    /// # Panics
    /// When that fails.
    pub fn push(&self, swarm: &Swarm, archive: &Path, name: &str) {
        let from = format!("docker-archive:{}", archive.display());
        let (to, who) = (format!("docker://{}/{name}", self.addr), format!("{USER}:{PASSWORD}"));
        let argv = ["skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false", "--dest-creds", &who, &from, &to];
        let argv = argv.map(str::to_owned);
        let said: Said = swarm.lab.exec("client", &argv).expect("a place").output().expect("skopeo runs").into();
        assert!(said.ok, "skopeo: {} {}\n{}", said.out, said.err, self.words());
    }

    /// What it has said.
    #[must_use]
    pub fn words(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Ends it.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
