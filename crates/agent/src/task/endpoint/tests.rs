//! Every interleaving of what may come over a task's endpoint with everything that the nodes do about it. In every world that can be reached
//! * the task is given new flows only after it was seen to take them, by whomever ([`World::check`]);
//! * it is told to stop only when its node's tables are without it, but for want of anybody else, and its flows have had their time
//!   ([`World::signal`]);
//! * old news never take the place of newer ones ([`World::hear`]);
//! * tables have the ready ones of those who are known, and while there is none those that are to stop ([`World::compiled`]);
//! * whatever the nodes do in whichever order, they come to rest when nothing more happens, and their tables are right then
//!   ([`World::check_rest`]); the task's own node comes to its right tables also when no message reaches the other ([`World::check_here`]).

mod world;

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use self::world::{EVENTS, Event, Key, Progress, World};

/// So many events at most come over a task that begins, and over one that takes connections; what the nodes do before, between and after them
/// is not bounded.
const EVENTS_AT_MOST: u32 = 3;

/// What makes one world of another.
#[derive(Clone, Copy)]
enum By {
    Itself(Progress),
    Event(Event),
}

impl fmt::Debug for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Itself(progress) => progress.fmt(f),
            Self::Event(event) => event.fmt(f),
        }
    }
}

/// A world that can be reached.
struct Reached {
    world: World,
    /// From which it was reached, and how.
    from: Option<(usize, By)>,
    /// Where it may go by itself.
    next: Vec<usize>,
}

#[derive(Default)]
struct Explorer {
    reached: Vec<Reached>,
    known: HashMap<Key, usize>,
}

impl Explorer {
    /// Breadth first: every world is reached with as few events as can be.
    fn explore(&mut self, begin: [World; 2]) {
        let mut fresh: Vec<_> = begin.into_iter().map(|world| self.reach(world, None).0).collect();
        for events in 0..=EVENTS_AT_MOST {
            let layer = self.reached.len() - fresh.len();
            while let Some(at) = fresh.pop() {
                fresh.extend(self.go_on(at));
            }
            if events < EVENTS_AT_MOST {
                fresh = (layer..self.reached.len()).flat_map(|at| self.suffer(at)).collect();
            }
        }
    }

    /// Whatever the world may do by itself. Returns what is new of it.
    fn go_on(&mut self, at: usize) -> Vec<usize> {
        let world = &self.reached[at].world;
        let progress = self.watched(at, || {
            world.check();
            let progress = world.progress();
            if !progress.iter().any(|(progress, _)| progress.is_here()) {
                world.check_here();
            }
            if progress.is_empty() {
                world.check_rest();
            }
            progress
        });
        let mut fresh = Vec::new();
        for (progress, next) in progress {
            let (to, new) = self.reach(next, Some((at, By::Itself(progress))));
            self.reached[at].next.push(to);
            fresh.extend(new.then_some(to));
        }
        fresh
    }

    /// Whatever may come over it. Returns what is new of it.
    fn suffer(&mut self, at: usize) -> Vec<usize> {
        let world = &self.reached[at].world;
        let after: Vec<_> = EVENTS.iter().filter_map(|event| Some((*event, world.after(*event)?))).collect();
        let reached = after.into_iter().map(|(event, next)| self.reach(next, Some((at, By::Event(event)))));
        reached.filter_map(|(to, new)| new.then_some(to)).collect()
    }

    /// Its number, and whether nobody was there before.
    fn reach(&mut self, world: World, from: Option<(usize, By)>) -> (usize, bool) {
        let number = self.reached.len();
        let found = *self.known.entry(world.key()).or_insert(number);
        if found == number {
            self.reached.push(Reached { world, from, next: Vec::new() });
        }
        (found, found == number)
    }

    /// Tells how a world was reached when something is wrong with it.
    fn watched<T>(&self, at: usize, check: impl FnOnce() -> T) -> T {
        catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|_| panic!("{}", self.story(at)))
    }

    fn story(&self, at: usize) -> String {
        let before = |at: &usize| self.reached[*at].from.map(|(before, _)| before);
        let mut way: Vec<_> = std::iter::successors(Some(at), before).collect();
        way.reverse();
        let steps: Vec<_> = way.iter().filter_map(|at| Some(self.reached[*at].from?.1)).collect();
        format!("from {:?} by {steps:?} to {:?}", self.reached[way[0]].world.key(), self.reached[at].world.key())
    }

    /// No world comes back to where it was by itself, so that all of them come to rest.
    fn check_ends(&self) {
        let mut ways_in = vec![0; self.reached.len()];
        self.reached.iter().flat_map(|world| &world.next).for_each(|to| ways_in[*to] += 1);
        let mut open: Vec<_> = (0..ways_in.len()).filter(|at| ways_in[*at] == 0).collect();
        while let Some(at) = open.pop() {
            for to in &self.reached[at].next {
                ways_in[*to] -= 1;
                open.extend((ways_in[*to] == 0).then_some(*to));
            }
        }
        let round = ways_in.iter().position(|ways| *ways > 0);
        assert!(round.is_none(), "goes round in circles: {}", self.story(round.unwrap_or_default()));
    }
}

/// The first way on until there is none.
fn at_rest(mut world: World) -> World {
    while let Some((_, next)) = world.progress().into_iter().next() {
        world = next;
    }
    world
}

#[test]
fn whatever_happens_in_whichever_order_the_tables_come_right() {
    let begins = World::new();
    let ready = at_rest(begins.after(Event::Listens).unwrap());
    let mut explorer = Explorer::default();
    explorer.explore([begins, ready]);
    explorer.check_ends();
    assert!(explorer.reached.len() > 50_000, "{} worlds: something never happens", explorer.reached.len());
}
