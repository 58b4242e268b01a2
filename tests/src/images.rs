//! The images of the stories, made on the spot.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use skep_model::Protocol;
use skep_runtime::images::ImageBuilder;

/// Where the image is kept that is made by this recipe: another recipe makes another.
pub(crate) fn kept(name: &str, recipe: &str) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    recipe.hash(&mut hasher);
    cache().join(format!("{name}-{:x}.tar", hasher.finish()))
}

fn cache() -> PathBuf {
    let dir = std::env::temp_dir().join("skep-e2e-images");
    fs::create_dir_all(&dir).expect("a directory for images");
    dir
}

/// The real nginx, out of Debian's packages: `/client` answers with the client's address, `/hostname` with the task's host name.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn nginx() -> PathBuf {
    let path = kept("nginx", include_str!("../make-nginx-image.sh"));
    if !path.exists() {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("make-nginx-image.sh");
        // Stories of other processes may look at the same time: made aside, then named.
        let aside = cache().join(format!("nginx.{}", std::process::id()));
        let status = Command::new("bash").arg(script).arg(&aside).status().expect("bash runs");
        assert!(status.success(), "the nginx image cannot be made");
        fs::rename(&aside, &path).expect("rename");
    }
    path
}

/// A server for UDP and TCP on port 53: a datagram comes back as it was sent, a connection is told `tcp`. UDP by IPv4 and IPv6, TCP by IPv4
/// alone. In Perl, which every Debian has, by system calls alone.
const ECHO: &str = r#"
my $any = pack("Sna4x8", 2, 53, "\0\0\0\0");
my $any6 = pack("SnNa16N", 10, 53, 0, "\0" x 16, 0);
if (fork() == 0) {
    socket(L, 2, 1, 6) and setsockopt(L, 1, 2, pack("l", 1)) and bind(L, $any) and listen(L, 16) or die "tcp: $!";
    while (accept(C, L)) { syswrite(C, "tcp\n"); close(C); }
}
socket(U, 10, 2, 17) and bind(U, $any6) or die "udp: $!";
while (my $from = recv(U, my $datagram, 65535, 0)) { send(U, $datagram, 0, $from); }
"#;

/// The image of the server for UDP and TCP, called `echo`.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn udp_echo() -> PathBuf {
    let path = kept("echo", ECHO);
    if !path.exists() {
        let read = |file: &str| fs::read(file).unwrap_or_else(|e| panic!("{file}: {e}"));
        let mut image = ImageBuilder::new("echo")
            .file("usr/bin/perl", 0o755, read("/usr/bin/perl"))
            .cmd(["/usr/bin/perl", "-e", ECHO])
            .expose(53, Protocol::Udp);
        for library in libraries(Path::new("/usr/bin/perl")) {
            image = image.file(library.trim_start_matches('/'), 0o755, read(&library));
        }
        let aside = cache().join(format!("echo.{}", std::process::id()));
        image.write(&mut File::create(&aside).expect("a file")).expect("the image is written");
        fs::rename(&aside, &path).expect("rename");
    }
    path
}

/// Debian's HAProxy with this configuration, called `haproxy`, written to `path`.
///
/// # Panics
/// When it cannot be made.
pub fn haproxy(path: &Path, config: &str) {
    const PROGRAM: &str = "/usr/sbin/haproxy";
    let read = |file: &str| fs::read(file).unwrap_or_else(|e| panic!("{file}: {e}: is Debian's haproxy installed?"));
    let mut image = ImageBuilder::new("haproxy")
        .file("usr/sbin/haproxy", 0o755, read(PROGRAM))
        .file("etc/haproxy/haproxy.cfg", 0o644, config)
        .cmd([PROGRAM, "-db", "-f", "/etc/haproxy/haproxy.cfg"])
        .expose(80, Protocol::Tcp);
    for library in libraries(Path::new(PROGRAM)) {
        image = image.file(library.trim_start_matches('/'), 0o755, read(&library));
    }
    image.write(&mut File::create(path).expect("a file")).expect("the image is written");
}

/// The image of a small server with a shell and all that goes with one, called `box`: port 80 answers `/client` with `up`.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn busybox() -> PathBuf {
    const RECIPE: &str = "httpd -f -p 80 -h /www";
    let path = kept("box", RECIPE);
    if !path.exists() {
        let program = fs::read("/bin/busybox").expect("stories need busybox-static at /bin/busybox");
        let mut image = ImageBuilder::new("box")
            .dir("tmp", 0o1777)
            .dir("root", 0o700)
            .dir("bin", 0o755)
            .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/home/web:/bin/sh\n")
            .file("etc/group", 0o644, "root:x:0:\nweb:x:102:\n")
            .file("www/client", 0o644, "up\n")
            .file("bin/busybox", 0o755, program)
            .cmd(RECIPE.split(' '))
            .expose(80, Protocol::Tcp);
        let applets = Command::new("/bin/busybox").arg("--list").output().expect("busybox runs");
        for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|applet| *applet != "busybox") {
            image = image.symlink(format!("bin/{applet}"), "busybox");
        }
        let aside = cache().join(format!("box.{}", std::process::id()));
        image.write(&mut File::create(&aside).expect("a file")).expect("the image is written");
        fs::rename(&aside, &path).expect("rename");
    }
    path
}

/// The files that a program is loaded with.
fn libraries(program: &Path) -> Vec<String> {
    let listed = Command::new("ldd").arg(program).output().expect("ldd runs");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    listed.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

/// Writes the image of the server that checks every byte, called `checker`, to `path`. It is as new as the test that asks for it, so it is not
/// kept.
///
/// # Panics
/// When it cannot be made.
pub fn checker(path: &Path) {
    let beside = std::env::current_exe().expect("this test's path");
    let program = beside.ancestors().nth(2).expect("target").join("skep-e2e-checker");
    let read = |file: &Path| fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let mut image = ImageBuilder::new("checker").file("checker", 0o755, read(&program)).entrypoint(["/checker"]);
    for library in libraries(&program) {
        image = image.file(library.trim_start_matches('/'), 0o755, read(Path::new(&library)));
    }
    image.write(&mut File::create(path).expect("a file")).expect("the image is written");
}
