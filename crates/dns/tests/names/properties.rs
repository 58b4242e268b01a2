//! What holds for every question.

use std::sync::Arc;

use crate::world::{World, query, with_room};
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use skep_dns::{Answer, Question, Received, answer};
use skep_model::EndpointState;

/// Labels that are nearly names of the small swarm.
fn names() -> impl Strategy<Value = String> {
    let label = prop_oneof![
        Just("web"),
        Just("WWW"),
        Just("tasks"),
        Just("api"),
        Just("app"),
        Just("back"),
        Just("end"),
        Just("1"),
        Just("_80"),
        Just("_tcp"),
        Just("db"),
        Just("in-addr"),
        Just("arpa"),
        Just("nosuch"),
        Just("10"),
    ];
    prop::collection::vec(label, 1..6).prop_map(|labels| labels.join("."))
}

fn kinds() -> impl Strategy<Value = RecordType> {
    any::<u8>().prop_map(|kind| RecordType::from(u16::from(kind)))
}

proptest! {
    /// Whatever comes in: nothing panics, and what goes out can be read, repeats the identifier and is no question.
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let scope = World::new().scope(&['n', 'm'], None);
        let reply = match Question::read(&bytes) {
            Received::Ignored => return Ok(()),
            Received::Refused(reply) => reply,
            Received::Question(question) => match answer(&question, &scope, &mut StdRng::seed_from_u64(1)) {
                Answer::Known(reply) => question.reply(reply, question.room()),
                Answer::Unknown => question.too_large(),
            },
        };
        prop_assert_eq!(&reply[..2], &bytes[..2]);
        prop_assert!(Message::from_vec(&reply).is_ok() && reply[2] & 0x80 != 0);
    }

    #[test]
    fn spoiled_questions(name in names(), kind in kinds(), at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let mut bytes = with_room(query(&name, kind), 1232).to_vec().unwrap();
        let spoiled = at.index(bytes.len());
        bytes[spoiled] = with;
        if let Received::Question(question) = Question::read(&bytes) {
            let scope = World::new().scope(&['n'], None);
            if let Answer::Known(reply) = answer(&question, &scope, &mut StdRng::seed_from_u64(1)) {
                prop_assert!(Message::from_vec(&question.reply(reply, question.room())).is_ok());
            }
        }
    }

    /// Nobody is told an address of a network that they are not on, or of a task that is not ready; no answer is larger than was asked for; and
    /// upper case makes no difference.
    #[test]
    fn any_question(name in names(), kind in kinds(), room in 0u16..5000, seed in any::<u64>(), ready in any::<[bool; 7]>()) {
        let mut world = World::new();
        for (located, ready) in world.endpoints.values_mut().zip(ready) {
            Arc::make_mut(&mut located.record).state = if ready { EndpointState::Ready } else { EndpointState::Draining };
        }
        let scope = world.scope(&['n'], None);
        let ask = |name: &str| {
            let question = crate::world::question(&with_room(query(name, kind), room));
            match answer(&question, &scope, &mut StdRng::seed_from_u64(seed)) {
                Answer::Known(reply) => Some((question.room(), question.reply(reply, question.room()))),
                Answer::Unknown => None,
            }
        };
        let asked = ask(&name);
        prop_assert_eq!(asked.is_some(), ask(&name.to_ascii_uppercase()).is_some());
        let Some((room, bytes)) = asked else { return Ok(()) };
        prop_assert!(bytes.len() <= usize::from(room));
        let message = Message::from_vec(&bytes).unwrap();
        let services = [[10, 1, 0, 2], [10, 1, 0, 3]];
        for address in message.answers.iter().chain(&message.additionals).filter_map(|record| record.data.ip_addr()) {
            let task = world.endpoints.iter().find(|(_, located)| located.record.addr == address);
            match task {
                Some((key, located)) => {
                    prop_assert!(key.network.as_str().starts_with('n') && located.record.state == EndpointState::Ready);
                }
                None => prop_assert!(services.iter().any(|service| address == std::net::IpAddr::from(*service))),
            }
        }
        prop_assert_eq!(message.additionals.is_empty(), !message.answers.iter().any(|r| r.record_type() == RecordType::SRV) || message.additionals.is_empty());
    }
}
