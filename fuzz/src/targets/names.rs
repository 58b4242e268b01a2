//! Messages of DNS: what tasks ask, and what the servers that are asked for them reply.

use skep_dns::{Question, Received};

/// A question, behind its length, and a reply to it.
pub(super) fn run(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return };
    let (question, reply) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
    match Question::read(question) {
        Received::Question(question) => {
            let room = question.room();
            assert!(question.too_large().len() <= usize::from(room));
            assert!(question.forwarded(7).starts_with(&[0, 7]));
            let mut reply = reply.to_vec();
            if question.matches(7, &reply) {
                question.sign(&mut reply);
                assert_eq!(reply[..2], question.forwarded(u16::from_be_bytes([reply[0], reply[1]]))[..2]);
            }
            question.name().into_iter().for_each(|name| assert!(!name.ends_with('.') && name.len() <= 253));
        }
        Received::Refused(refusal) => assert!(refusal.len() <= 512),
        Received::Ignored => {}
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    // Header: identifier, flags, one question; then the name in labels, its type, and IN.
    let head = |response: u8, answers: u8, extras: u8| [0, 7, 1 | response, 0, 0, 1, 0, answers, 0, 0, 0, extras];
    let asked = |name: &str, kind: u8| {
        let labels = name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
        labels.chain([0, 0, kind, 0, 1]).collect::<Vec<u8>>()
    };
    let edns = [0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0];
    let address = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 192, 0, 2, 1];
    let names =
        [("web", 1), ("tasks.web", 28), ("_http._tcp.web", 33), ("1.0.0.10.in-addr.arpa", 12), ("a.b.example", 255)];
    let seed = |(name, kind): (&str, u8)| {
        let question = [&head(0, 0, 1)[..], &asked(name, kind), &edns].concat();
        let reply = [&head(0x80, 1, 0)[..], &asked(name, kind), &address].concat();
        [&(question.len() as u16).to_be_bytes()[..], &question, &reply].concat()
    };
    names.into_iter().map(seed).collect()
}
