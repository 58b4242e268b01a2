//! Who may call what.

/// What an RPC asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A good join token. No certificate is needed.
    JoinToken,
    /// The certificate of a member.
    Member,
    /// The certificate of a manager.
    Manager,
}

/// The rule of the RPC at `path`. An RPC that is not named here is refused to everybody: what is added later is closed until somebody opens it.
pub(crate) fn rule(path: &str) -> Option<Rule> {
    let (service, method) = path.strip_prefix("/skep.v1.")?.split_once('/')?;
    Some(match (service, method) {
        ("Membership", "Join") => Rule::JoinToken,
        ("Membership", "Renew") => Rule::Member,
        ("Dispatcher", "Session" | "PublishLogs" | "Leave") => Rule::Member,
        ("Api", "Tunnel") => Rule::Manager,
        ("Raft", "AppendEntries" | "Vote" | "InstallSnapshot") => Rule::Manager,
        _ => return None,
    })
}
