//! What a node's resolvers have done since its daemon started.

use std::sync::atomic::{AtomicU64, Ordering};

use hickory_proto::rr::RecordType;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// The name of an address.
    Ptr,
    /// Ports.
    Srv,
    /// Anything else, and what could not be read.
    Other,
}

impl Asked {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::A, Self::Aaaa, Self::Ptr, Self::Srv, Self::Other];

    /// As it is called in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Ptr => "PTR",
            Self::Srv => "SRV",
            Self::Other => "other",
        }
    }
}

impl From<RecordType> for Asked {
    fn from(kind: RecordType) -> Self {
        match kind {
            RecordType::A => Self::A,
            RecordType::AAAA => Self::Aaaa,
            RecordType::PTR => Self::Ptr,
            RecordType::SRV => Self::Srv,
            _ => Self::Other,
        }
    }
}

/// What became of a question. Each is one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Became {
    /// It was answered with what the swarm has.
    Records,
    /// The swarm has the name, and nothing of the kind.
    NoData,
    /// There is no such name.
    NoName,
    /// Another resolver has answered it.
    Forwarded,
    /// None of the others has.
    Failed,
    /// It could not be read, or its asker has asked too many at once.
    Refused,
}

impl Became {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Records, Self::NoData, Self::NoName, Self::Forwarded, Self::Failed, Self::Refused];

    /// As it is called in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::NoData => "nodata",
            Self::NoName => "nxdomain",
            Self::Forwarded => "forwarded",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

/// What a node's resolvers have done.
#[derive(Debug, Default)]
pub struct Counters([[AtomicU64; Became::ALL.len()]; Asked::ALL.len()]);

impl Counters {
    /// How many questions of a kind have come to that.
    #[must_use]
    pub fn of(&self, asked: Asked, became: Became) -> u64 {
        self.cell(asked, became).load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self, asked: Asked, became: Became) {
        self.cell(asked, became).fetch_add(1, Ordering::Relaxed);
    }

    fn cell(&self, asked: Asked, became: Became) -> &AtomicU64 {
        &self.0[asked as usize][became as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_has_a_counter_of_its_own() {
        let counters = Counters::default();
        for asked in Asked::ALL {
            for became in Became::ALL {
                assert_eq!(counters.of(asked, became), 0, "{asked:?} {became:?}");
                counters.count(asked, became);
                assert_eq!(counters.of(asked, became), 1, "{asked:?} {became:?}");
            }
        }
    }
}
