//! Users and groups by the names that the image gives them.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use crate::error::RuntimeError;

/// Who a container's program runs as.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    /// Where its files are, `/` when the image does not know it.
    pub(crate) home: String,
}

/// `user`, `uid`, `user:group` or `uid:gid`, with supplementary groups, as the files of `rootfs` say.
pub(crate) fn resolve(rootfs: &Path, text: &str, extra: &[String]) -> Result<User, RuntimeError> {
    let passwd = table(rootfs, "/etc/passwd")?;
    let group = table(rootfs, "/etc/group")?;
    let (who, primary) = text.split_once(':').map_or((text, None), |(u, g)| (u, Some(g)));
    let who = if who.is_empty() { "0" } else { who };
    let number = number(who)?;
    let by_name = passwd.iter().find(|r| r[0] == who);
    let row = by_name.or_else(|| passwd.iter().find(|r| number.is_some() && field(r, 2) == number));
    let uid = row.and_then(|r| field(r, 2)).or(number).ok_or_else(|| RuntimeError::UnknownUser(who.to_owned()))?;
    let gid = match primary {
        Some(name) => gid(&group, name)?,
        None => row.and_then(|r| field(r, 3)).unwrap_or(0),
    };
    let mut groups = Vec::new();
    if let (Some(row), None) = (row, primary) {
        let member = |r: &&Vec<String>| r.get(3).is_some_and(|users| users.split(',').any(|u| u == row[0]));
        groups.extend(group.iter().filter(member).filter_map(|r| field(r, 2)));
    }
    for name in extra {
        groups.push(self::gid(&group, name)?);
    }
    groups.sort_unstable();
    groups.dedup();
    let home = row.and_then(|r| r.get(5)).filter(|h| h.starts_with('/')).map_or("/", String::as_str).to_owned();
    Ok(User { uid, gid, groups, home })
}

/// `text` when it is a number, which then must be one of a user or group.
fn number(text: &str) -> Result<Option<u32>, RuntimeError> {
    let Ok(number) = text.parse::<i64>() else { return Ok(None) };
    let id = i32::try_from(number).ok().and_then(|n| u32::try_from(n).ok());
    id.map(Some).ok_or_else(|| RuntimeError::IdRange(text.to_owned()))
}

fn gid(group: &[Vec<String>], name: &str) -> Result<u32, RuntimeError> {
    let row = group.iter().find(|r| r[0] == name).and_then(|r| field(r, 2));
    row.map_or_else(|| number(name), |gid| Ok(Some(gid)))?.ok_or_else(|| RuntimeError::UnknownGroup(name.to_owned()))
}

fn field(row: &[String], index: usize) -> Option<u32> {
    row.get(index)?.parse().ok()
}

fn table(rootfs: &Path, path: &str) -> Result<Vec<Vec<String>>, RuntimeError> {
    // Opened inside the image's root: the file may be a link to anywhere.
    let text = match super::mounts::open_inside(rootfs, path).and_then(read_bounded) {
        Ok(text) => text,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => String::new(),
        Err(source) => return Err(RuntimeError::Accounts { path: path.to_owned(), source }),
    };
    Ok(text.lines().filter(|l| !l.is_empty()).map(|l| l.split(':').map(str::to_owned).collect()).collect())
}

/// The text of a regular file, which comes from a stranger and may be anything.
fn read_bounded(file: File) -> io::Result<String> {
    const MOST: u64 = 16 << 20;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > MOST {
        return Err(io::Error::new(ErrorKind::InvalidData, "it is no regular file of a sensible size"));
    }
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn names_and_numbers_are_looked_up_in_the_image() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:\nweb:x:101:102::/:\n").unwrap();
        fs::write(root.path().join("etc/group"), "root:x:0:\nweb:x:102:\nlog:x:7:web\n").unwrap();
        let user = |text: &str, extra: &[&str]| {
            let extra: Vec<String> = extra.iter().map(|s| (*s).to_owned()).collect();
            resolve(root.path(), text, &extra).map(|u| (u.uid, u.gid, u.groups)).map_err(|e| e.to_string())
        };
        assert_eq!(user("", &[]), Ok((0, 0, vec![])));
        assert_eq!(user("web", &["9"]), Ok((101, 102, vec![7, 9])));
        assert_eq!(user("101", &[]), Ok((101, 102, vec![7])));
        assert_eq!(user("web:log", &[]), Ok((101, 7, vec![])));
        assert_eq!(user("4000:5000", &[]), Ok((4000, 5000, vec![])));
        assert_eq!(
            user("4294967295", &[]).unwrap_err(),
            "uids and gids must be in range 0-2147483647, 4294967295 is not"
        );
        assert_eq!(resolve(root.path(), "web", &[]).unwrap().home, "/");
        assert!(user("nobody", &[]).unwrap_err().contains("unable to find user nobody"));
        assert!(user("web:none", &[]).unwrap_err().contains("unable to find group none"));
    }
}
