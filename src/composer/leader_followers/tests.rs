//! Every interleaving, up to a number of preemptions, of consumers, arrivals, wakes and closes.
//!
//! A wake-up that is lost leaves a thread waiting for ever, which loom reports as a deadlock. Run by
//! `RUSTFLAGS="--cfg loom" cargo test --release --target-dir target/loom --lib leader_followers`.

mod model;
pub(super) mod time;

use super::Next;
use crate::error::Error;
use model::{ABANDONED, HOUR, Model};
use std::time::Duration;

/// So many preemptions find every fault that has been tried, and take seconds.
fn check(preemptions: usize, portion: usize, run: impl Fn(&Model) + Copy + Send + Sync + 'static) {
    // The library's thread must be there in time; but it must not be what helps the others.
    for timer_expires in [true, false] {
        check_with_timer(timer_expires, preemptions, portion, run);
    }
}

fn check_with_timer(
    timer_expires: bool,
    preemptions: usize,
    portion: usize,
    run: impl Fn(&Model) + Send + Sync + 'static,
) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 10_000;
    builder.check(move || {
        let model = Model::open(portion, timer_expires);
        run(&model);
        model.close();
    });
}

fn op_of(next: Result<Next, Error>) -> u64 {
    match next {
        Ok(Next::Op(op)) => op.id,
        other => panic!("not an operation: {other:?}"),
    }
}

fn sorted<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.into_iter().collect();
    items.sort();
    items
}

fn each_operation_goes_to_one_consumer(portion: usize) {
    check(2, portion, move |model| {
        let consumers = [1, 2].map(|_| model.spawn(|model| op_of(model.next())));
        model.arrive(1);
        model.lock();
        model.arrive(2);
        assert_eq!(sorted(consumers.map(|c| c.join().unwrap())), [1, 2]);
        model.assert_idle();
    });
}

#[test]
fn each_operation_goes_to_one_consumer_from_one_portion() {
    each_operation_goes_to_one_consumer(2);
}

#[test]
fn each_operation_goes_to_one_consumer_from_several_portions() {
    each_operation_goes_to_one_consumer(1);
}

#[test]
fn three_consumers() {
    check(1, 2, |model| {
        let consumers = [1, 2, 3].map(|_| model.spawn(|model| op_of(model.next())));
        for id in [1, 2, 3] {
            model.arrive(id);
        }
        assert_eq!(sorted(consumers.map(|c| c.join().unwrap())), [1, 2, 3]);
        model.assert_idle();
    });
}

#[test]
fn a_wake_is_told_once() {
    check(2, 2, |model| {
        let consumers = [1, 2].map(|_| {
            model.spawn(|model| match model.next() {
                Ok(Next::Woken) => 0,
                next => op_of(next),
            })
        });
        model.waiters.wake();
        model.arrive(1);
        assert_eq!(sorted(consumers.map(|c| c.join().unwrap())), [0, 1]);
        model.assert_idle();
    });
}

#[test]
fn a_wake_needs_no_operation() {
    check(2, 2, |model| {
        let consumers = [1, 2].map(|_| {
            model.spawn(|model| {
                assert!(matches!(model.next(), Ok(Next::Woken)));
                model.waiters.wake();
            })
        });
        model.waiters.wake();
        for consumer in consumers {
            consumer.join().unwrap();
        }
        let look = || model.waiters.next(Some(Duration::ZERO));
        assert!(matches!(look(), Ok(Next::Woken)));
        assert!(matches!(look(), Ok(Next::Timeout)));
        model.assert_idle();
    });
}

#[test]
fn wakes_before_one_is_told_are_one() {
    check(2, 2, |model| {
        model.waiters.wake();
        model.waiters.wake();
        let consumer = model.spawn(|model| (model.next(), model.next()));
        model.arrive(1);
        let (first, second) = consumer.join().unwrap();
        assert!(matches!(first, Ok(Next::Woken)));
        assert_eq!(op_of(second), 1);
        model.assert_idle();
    });
}

#[test]
fn a_close_tells_everyone() {
    check(2, 2, |model| {
        let consumers = [1, 2].map(|_| {
            model.spawn(|model| {
                let next = model.next();
                assert!(matches!(model.next(), Ok(Next::Closed)));
                matches!(next, Ok(Next::Woken))
            })
        });
        // Both get what they must whether the close comes before or after.
        model.waiters.wake();
        model.close();
        let woken = consumers.map(|c| c.join().unwrap());
        assert!(!(woken[0] && woken[1]));
        assert!(
            model.waiters.kernel.facts().bell,
            "the descriptor stays readable"
        );
    });
}

#[test]
fn two_may_close() {
    check(2, 2, |model| {
        let close = |model: &Model| {
            let first = model.close();
            assert!(model.lock().closed);
            first
        };
        let consumer = model.spawn(|model| assert!(matches!(model.next(), Ok(Next::Closed))));
        let other = model.spawn(close);
        let first = close(model);
        assert_ne!(first, other.join().unwrap());
        consumer.join().unwrap();
    });
}

#[test]
fn an_error_tells_everyone() {
    check(2, 2, |model| {
        let consumers = [1, 2].map(|_| model.spawn(|model| model.next().is_err()));
        let mut desk = model.lock();
        desk.work.failed = true;
        drop(model.waiters.after_work(desk));
        assert_eq!(consumers.map(|c| c.join().unwrap()), [true, true]);
    });
}

/// inotify's queue must not overflow because nobody calls.
#[test]
fn the_thread_stands_in() {
    check_with_timer(true, 3, 1, |model| {
        let consumer = model.spawn(|model| op_of(model.next()));
        model.arrive(1);
        model.arrive(2);
        assert_eq!(consumer.join().unwrap(), 1);
        model.wait_until_drained();
        assert_eq!(op_of(model.next()), 2);
        model.assert_idle();
    });
}

#[test]
fn the_thread_stands_in_after_a_look() {
    check_with_timer(true, 3, 1, |model| {
        let looker = model.spawn(|model| model.waiters.next(Some(Duration::ZERO)));
        model.complete_slowly();
        let looked = looker.join().unwrap();
        assert!(matches!(looked, Ok(Next::Timeout)));
        model.arrive(1);
        model.wait_until_drained();
        assert_eq!(op_of(model.next()), 1);
    });
}

#[test]
fn the_thread_stands_in_after_a_wake() {
    check_with_timer(true, 3, 1, |model| {
        let consumer = model.spawn(|model| assert!(matches!(model.next(), Ok(Next::Woken))));
        model.waiters.wake();
        consumer.join().unwrap();
        model.arrive(1);
        model.wait_until_drained();
        assert_eq!(op_of(model.next()), 1);
    });
}

#[test]
fn a_completion_comes_between() {
    check(2, 1, |model| {
        let consumers = [1, 2].map(|_| model.spawn(|model| op_of(model.next())));
        model.arrive(1);
        model.complete_slowly();
        model.arrive(2);
        assert_eq!(sorted(consumers.map(|c| c.join().unwrap())), [1, 2]);
        model.assert_idle();
    });
}

#[test]
fn the_descriptor_calls() {
    check(2, 2, |model| {
        let pollers = [1, 2].map(|_| model.spawn(|model| op_of(model.poll_for_next())));
        model.waiters.begin_polling(&mut model.lock());
        model.arrive(1);
        model.arrive(2);
        assert_eq!(sorted(pollers.map(|p| p.join().unwrap())), [1, 2]);
        model.assert_idle();
    });
}

#[test]
fn the_descriptor_calls_for_an_operation_found_before() {
    check(2, 2, |model| {
        model.arrive(1);
        model.wait_until_drained();
        model.waiters.begin_polling(&mut model.lock());
        assert_eq!(op_of(model.poll_for_next()), 1);
        model.assert_idle();
    });
}

#[test]
fn the_descriptor_calls_for_a_wake_made_before() {
    check(2, 2, |model| {
        model.waiters.wake();
        model.waiters.begin_polling(&mut model.lock());
        assert!(matches!(model.poll_for_next(), Ok(Next::Woken)));
        model.assert_idle();
    });
}

#[test]
fn the_descriptor_calls_beside_a_leader() {
    check(2, 2, |model| {
        model.waiters.begin_polling(&mut model.lock());
        let consumer = model.spawn(|model| op_of(model.next()));
        let poller = model.spawn(|model| op_of(model.poll_for_next()));
        model.arrive(1);
        model.arrive(2);
        assert_eq!(
            sorted([consumer, poller].map(|c| c.join().unwrap())),
            [1, 2]
        );
        model.assert_idle();
    });
}

#[test]
fn an_abandoned_operation_calls_once() {
    check(2, 1, |model| {
        model.waiters.begin_polling(&mut model.lock());
        let consumer = model.spawn(|model| op_of(model.next()));
        model.arrive(ABANDONED);
        model.arrive(1);
        assert_eq!(consumer.join().unwrap(), 1);
        model.assert_idle();
    });
}

/// Gives up after an hour; what it was told before must not be lost.
fn with_timeout(model: &Model) -> Option<u64> {
    match model.waiters.next(Some(HOUR)) {
        Ok(Next::Timeout | Next::Closed) => None,
        next => Some(op_of(next)),
    }
}

#[test]
fn a_timeout_comes_between() {
    check(2, 1, |model| {
        let hasty = model.spawn(with_timeout);
        let patient = model.spawn(|model| op_of(model.next()));
        model.let_an_hour_pass();
        model.arrive(1);
        model.arrive(2);
        let second = patient.join().unwrap();
        model.close();
        assert_ne!(hasty.join().unwrap(), Some(second));
    });
}

#[test]
fn a_timeout_comes_between_two_who_wait() {
    check(1, 1, |model| {
        let first = model.spawn(|model| op_of(model.next()));
        let hasty = model.spawn(with_timeout);
        let last = model.spawn(|model| op_of(model.next()));
        model.arrive(1);
        model.let_an_hour_pass();
        model.arrive(2);
        model.arrive(3);
        let mut taken = vec![first.join().unwrap(), last.join().unwrap()];
        model.close();
        taken.extend(hasty.join().unwrap());
        let count = taken.len();
        taken.sort();
        taken.dedup();
        assert_eq!(taken.len(), count);
    });
}

/// Of threads that leave something to the library's, each waits until that has been done, and no
/// longer.
#[test]
fn what_is_left_to_the_thread_is_waited_for() {
    check(1, 1, |model| {
        let leaving = [1, 2].map(|_| model.spawn(Model::leave_to_the_thread));
        let consumer = model.spawn(|model| op_of(model.next()));
        model.arrive(1);
        for thread in leaving {
            thread.join().unwrap();
        }
        assert_eq!(consumer.join().unwrap(), 1);
        model.assert_idle();
    });
}

#[test]
fn a_close_ends_the_waiting_for_the_thread() {
    check(2, 1, |model| {
        let leaving = model.spawn(Model::leave_to_the_thread);
        model.close();
        leaving.join().unwrap();
    });
}
