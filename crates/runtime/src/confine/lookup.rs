//! Which file a command means.

use std::io::ErrorKind;
use std::path::Path;

use nix::unistd::{AccessFlags, access};

/// The file that `name` means, looked up as a shell does, in the words in which Docker says that there is none.
pub(super) fn find(name: &str, path: &str) -> Result<String, String> {
    if name.contains('/') {
        return match executable(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(ErrorKind::NotFound) => Err(format!("exec: \"{name}\": stat {name}: no such file or directory")),
            Err(ErrorKind::IsADirectory) => Err(format!("exec: \"{name}\": is a directory")),
            Err(_) => Err(format!("exec: \"{name}\": permission denied")),
        };
    }
    let mut denied = false;
    for dir in path.split(':') {
        let file = format!("{}/{name}", if dir.is_empty() { "." } else { dir });
        match executable(&file) {
            Ok(()) => return Ok(file),
            Err(ErrorKind::PermissionDenied) => denied = true,
            Err(_) => {}
        }
    }
    if denied {
        return Err(format!("exec: \"{name}\": permission denied"));
    }
    Err(format!("exec: \"{name}\": executable file not found in $PATH"))
}

fn executable(file: &str) -> Result<(), ErrorKind> {
    let meta = Path::new(file).metadata().map_err(|e| e.kind())?;
    if meta.is_dir() {
        return Err(ErrorKind::IsADirectory);
    }
    access(file, AccessFlags::X_OK).map_err(|_| ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn commands_are_found_as_a_shell_finds_them() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        for (name, mode) in [("plain", 0o644), ("run", 0o755)] {
            fs::write(at(name), "").unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::create_dir(at("sub")).unwrap();
        let path = format!("/nowhere:{}", at(""));
        assert!(find("run", &path).unwrap().ends_with("/run"));
        assert_eq!(find(&at("run"), "").unwrap(), at("run"));
        assert_eq!(find("nosuch", &path).unwrap_err(), "exec: \"nosuch\": executable file not found in $PATH");
        assert_eq!(find("plain", &path).unwrap_err(), "exec: \"plain\": permission denied");
        assert_eq!(
            find("/no/such", &path).unwrap_err(),
            "exec: \"/no/such\": stat /no/such: no such file or directory"
        );
        assert!(find(&at("plain"), "").unwrap_err().ends_with("permission denied"));
        assert!(find(&at("sub"), "").unwrap_err().ends_with("is a directory"));
        assert!(find("sub", &path).is_err());
    }
}
