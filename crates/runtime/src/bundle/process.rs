//! The program of a container: arguments, environment, user, capabilities, limits.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::users;
use crate::container::Container;
use crate::error::RuntimeError;
use crate::images::ImageConfig;
use skep_model::ContainerSpec;

/// What Docker lets a container's root do.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// For a program with a terminal, where nothing else is said.
pub(crate) const TERM: &str = "TERM=xterm";

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The process of a bundle, and its `HOME` where neither image nor service say it.
pub(super) fn process(
    rootfs: &Path,
    container: &Container,
    image: &ImageConfig,
) -> Result<(Value, Option<String>), RuntimeError> {
    let spec = &container.spec;
    let args = args(spec, image)?;
    let user = users::resolve(rootfs, spec.user.as_deref().unwrap_or(&image.user), &spec.groups)?;
    let caps = capabilities(&spec.cap_add, &spec.cap_drop)?;
    let cwd = spec.dir.as_deref().filter(|d| !d.is_empty()).unwrap_or(&image.working_dir);
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    if !cwd.starts_with('/') {
        return Err(RuntimeError::BadDir(cwd.to_owned()));
    }
    let (mut env, home) = env(&[&image.env, &spec.env, &container.env], &container.hostname, &user.home)?;
    if spec.tty && !env.iter().any(|e| e.starts_with("TERM=")) {
        env.push(TERM.to_owned());
    }
    // Nothing is said of noNewPrivileges: only absent means that setuid programs work together with a system call filter.
    // Another user than root has capabilities only by programs that give them.
    let own: &[String] = if user.uid == 0 { &caps } else { &[] };
    let process = json!({
        // libcontainer makes none: the program takes its own in the container (see the `terminal` module).
        "terminal": false,
        "user": { "uid": user.uid, "gid": user.gid, "additionalGids": user.groups },
        "args": args,
        "env": env,
        "cwd": cwd,
        "capabilities": { "bounding": caps, "effective": own, "permitted": own, "inheritable": [], "ambient": [] },
        "rlimits": rlimits(container)?,
        "oomScoreAdj": spec.oom_score_adj,
    });
    Ok((process, home))
}

/// What is executed: the service's command replaces the image's entrypoint and with it the image's command; the service's
/// arguments replace the latter.
pub(crate) fn args(spec: &ContainerSpec, image: &ImageConfig) -> Result<Vec<String>, RuntimeError> {
    let (entrypoint, rest) = match (spec.command.is_empty(), spec.args.is_empty()) {
        (false, _) => (&spec.command, &spec.args),
        (true, false) => (&image.entrypoint, &spec.args),
        (true, true) => (&image.entrypoint, &image.cmd),
    };
    let all: Vec<String> = entrypoint.iter().chain(rest).cloned().collect();
    if all.first().is_none_or(String::is_empty) { Err(RuntimeError::NoCommand) } else { Ok(all) }
}

/// Later ones win; a name alone unsets. There is always a `PATH`, a `HOSTNAME` and a `HOME`; the latter is given back when nobody says it.
fn env(layers: &[&Vec<String>], hostname: &str, home: &str) -> Result<(Vec<String>, Option<String>), RuntimeError> {
    let mut merged = vec![PATH.to_owned(), format!("HOSTNAME={hostname}")];
    for layer in layers {
        override_env(&mut merged, layer)?;
    }
    if merged.iter().any(|e| e.starts_with("HOME=")) {
        return Ok((merged, None));
    }
    merged.push(format!("HOME={home}"));
    Ok((merged, Some(home.to_owned())))
}

/// Puts the variables of `layer` over those of `env`.
pub(crate) fn override_env(env: &mut Vec<String>, layer: &[String]) -> Result<(), RuntimeError> {
    for entry in layer {
        let (name, value) = entry.split_once('=').map_or((entry.as_str(), None), |(name, value)| (name, Some(value)));
        if name.is_empty() || entry.contains('\0') {
            return Err(RuntimeError::BadEnv(entry.clone()));
        }
        let at = env.iter().position(|e| e.split_once('=').is_some_and(|(n, _)| n == name));
        match (value, at) {
            (Some(_), Some(at)) => env[at].clone_from(entry),
            (Some(_), None) => env.push(entry.clone()),
            (None, Some(at)) if name != "PATH" => drop(env.remove(at)),
            (None, _) => {}
        }
    }
    Ok(())
}

fn capabilities(add: &[String], dropped: &[String]) -> Result<Vec<String>, RuntimeError> {
    let known: BTreeSet<String> = caps::all().iter().map(ToString::to_string).collect();
    let full = |name: &String| {
        let upper = name.to_ascii_uppercase();
        let name = if upper.starts_with("CAP_") || upper == "ALL" { upper } else { format!("CAP_{upper}") };
        if name == "ALL" || known.contains(&name) { Ok(name) } else { Err(RuntimeError::UnknownCapability(name)) }
    };
    let add: BTreeSet<String> = add.iter().map(full).collect::<Result<_, _>>()?;
    let dropped: BTreeSet<String> = dropped.iter().map(full).collect::<Result<_, _>>()?;
    let mut set: BTreeSet<String> = if add.contains("ALL") {
        // Those that the kernel does not know yet cannot be given.
        caps::runtime::thread_all_supported().iter().map(ToString::to_string).collect()
    } else if dropped.contains("ALL") {
        BTreeSet::new()
    } else {
        DEFAULT.iter().map(|c| format!("CAP_{c}")).collect()
    };
    set.extend(add.into_iter().filter(|c| c != "ALL"));
    Ok(set.into_iter().filter(|c| !dropped.contains(c)).collect())
}

fn rlimits(container: &Container) -> Result<Vec<Value>, RuntimeError> {
    const NAMES: [&str; 16] = [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let limit = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    let one = |u: &skep_model::Ulimit| {
        let bad = |reason| RuntimeError::BadUlimit { name: u.name.clone(), reason };
        if !NAMES.contains(&u.name.as_str()) {
            return Err(bad("there is no such limit"));
        }
        if u.soft < -1 || u.hard < -1 || limit(u.soft) > limit(u.hard) {
            return Err(bad("the soft limit must not be above the hard one"));
        }
        let name = format!("RLIMIT_{}", u.name.to_ascii_uppercase());
        Ok(json!({ "type": name, "soft": limit(u.soft), "hard": limit(u.hard) }))
    };
    container.spec.ulimits.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn command_and_args_replace_as_docker_does() {
        let image = ImageConfig { entrypoint: texts(&["e"]), cmd: texts(&["c"]), ..ImageConfig::default() };
        let run = |command: &[&str], rest: &[&str], image: &ImageConfig| {
            args(&ContainerSpec { command: texts(command), args: texts(rest), ..ContainerSpec::default() }, image)
        };
        assert_eq!(run(&[], &[], &image).unwrap(), ["e", "c"]);
        assert_eq!(run(&[], &["a"], &image).unwrap(), ["e", "a"]);
        assert_eq!(run(&["x"], &[], &image).unwrap(), ["x"]);
        assert_eq!(run(&["x"], &["a"], &image).unwrap(), ["x", "a"]);
        assert!(matches!(run(&[], &[], &ImageConfig::default()), Err(RuntimeError::NoCommand)));
    }

    #[test]
    fn the_last_of_a_variable_wins_and_a_bare_name_unsets() {
        let (image, spec) = (texts(&["A=1", "B=2"]), texts(&["A=3", "B", "PATH"]));
        let (all, home) = env(&[&image, &spec], "h", "/root").unwrap();
        assert_eq!((all, home), (texts(&[PATH, "HOSTNAME=h", "A=3", "HOME=/root"]), Some("/root".to_owned())));
        let (all, home) = env(&[&texts(&["HOME=/x"])], "h", "/root").unwrap();
        assert_eq!((all, home), (texts(&[PATH, "HOSTNAME=h", "HOME=/x"]), None));
        assert!(matches!(env(&[&texts(&["=1"])], "h", "/"), Err(RuntimeError::BadEnv(entry)) if entry == "=1"));
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        assert_eq!(capabilities(&[], &[]).unwrap().len(), DEFAULT.len());
        assert_eq!(capabilities(&texts(&["net_admin"]), &texts(&["ALL"])).unwrap(), ["CAP_NET_ADMIN"]);
        assert!(!capabilities(&[], &texts(&["CAP_CHOWN"])).unwrap().contains(&"CAP_CHOWN".to_owned()));
        assert!(
            matches!(capabilities(&texts(&["FLY"]), &[]), Err(RuntimeError::UnknownCapability(name)) if name == "CAP_FLY")
        );
    }
}
