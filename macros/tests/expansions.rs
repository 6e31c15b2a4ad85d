//! Expansions compile without a warning, mean what they say, and keep out of the user's way.
//!
//! This crate plays the part of `urpc`. It shows what the macros ask of `urpc`, and nothing about
//! crossing processes.

#![deny(warnings, missing_docs, unreachable_pub)]

mod names;
mod stand_in;

use std::any::Any;
use std::sync::Arc;

pub use stand_in::{__private, Call, CallError, Peer, Result, Service};
use stand_in::{PROCESSORS, now};
use urpc_macros as macros;

extern crate self as urpc;

/// The example of the documentation.
#[macros::service]
pub trait Calc {
    /// The sum of both.
    async fn add(&self, a: i64, b: i64) -> i64;
    /// The quotient, if there is one.
    async fn div(&self, a: i64, b: i64) -> std::result::Result<i64, String>;
    /// Nothing.
    async fn stop(&self);
}

struct Sums;

impl Calc for Sums {
    async fn add(&self, a: i64, b: i64) -> i64 {
        a + b
    }

    async fn div(&self, a: i64, b: i64) -> std::result::Result<i64, String> {
        a.checked_div(b)
            .ok_or_else(|| "division by zero".to_owned())
    }

    async fn stop(&self) {}
}

#[test]
fn a_client_calls_what_the_server_carries_out() {
    let peer = Peer::new(CalcServer::new(Sums));
    let calc = CalcClient::on(&peer).clone();
    assert_eq!(now(calc.add(2, 3)), Ok(5));
    assert_eq!(now(calc.div(7, 2)), Ok(Ok(3)));
    assert_eq!(now(calc.div(1, 0)), Ok(Err("division by zero".to_owned())));
    assert_eq!(now(calc.stop()), Ok(()));
    assert_eq!(calc.check(), Ok(()));
    assert!(Arc::ptr_eq(&calc.peer().0, &peer.0));
    assert_eq!(
        format!("{:?}", CalcServer::new(Sums).clone()),
        "CalcServer { .. }"
    );
}

#[test]
fn connect_hands_on_what_urpc_says() {
    let error = now(CalcClient::connect("calc")).expect_err("nobody listens");
    assert_eq!(error, "nobody listens at calc");
}

mod older {
    /// The same service as before, but for one type.
    #[urpc_macros::service]
    pub(crate) trait Calc {
        async fn add(&self, a: i32, b: i32) -> i32;
        async fn stop(&self);
    }
}

#[test]
fn methods_are_compared_one_by_one() {
    let calc = older::CalcClient::on(&Peer::new(CalcServer::new(Sums)));
    let expected = Err("no procedure Calc.add(i32, i32) -> i32".to_owned());
    assert_eq!(now(calc.add(2, 3)), expected);
    assert_eq!(now(calc.stop()), Ok(()));
    assert_eq!(calc.check(), expected.map(|_: i32| ()));
}

#[test]
fn a_default_body_is_the_body_of_an_async_function() {
    #[macros::service(name = "test.Defaults")]
    trait Defaults {
        async fn base(&self) -> u64;

        async fn boxed(&self, mut by: u64) -> Box<dyn Any + Send> {
            by += self.base().await;
            Box::new(by)
        }

        async fn parsed(
            &self,
            text: String,
        ) -> std::result::Result<u64, Box<dyn std::error::Error + Send + Sync>> {
            if text.is_empty() {
                return Ok(self.base().await);
            }
            Ok(text.parse::<u64>()?)
        }

        async fn nothing(&self) {}

        async fn next(&self) -> u64 {
            self.base().await + 1
        }

        async fn never(&self) -> u64 {
            unimplemented!()
        }
    }
    struct Forty;
    impl Defaults for Forty {
        async fn base(&self) -> u64 {
            40
        }
    }
    let client = DefaultsClient::on(&Peer::new(DefaultsServer::new(Forty)));
    let boxed = now(client.boxed(2)).expect("an answer");
    assert_eq!(boxed.downcast_ref(), Some(&42u64));
    assert_eq!(
        now(client.parsed(String::new()))
            .expect("an answer")
            .expect("a number"),
        40
    );
    assert_eq!(
        now(client.parsed("7".to_owned()))
            .expect("an answer")
            .expect("a number"),
        7
    );
    assert!(
        now(client.parsed("x".to_owned()))
            .expect("an answer")
            .is_err()
    );
    assert_eq!(now(client.nothing()), Ok(()));
    assert_eq!(now(client.next()), Ok(41));
    assert_eq!(
        DefaultsClient::PROCEDURES[0],
        ("test.Defaults.base", "test.Defaults.base() -> u64")
    );
}

#[test]
fn procedures_keep_their_places_whatever_conditions_hold() {
    #[macros::service]
    trait Conditional {
        #[cfg(not(target_os = "linux"))]
        async fn first(&self, missing: Missing) -> Missing;
        #[cfg(target_os = "linux")]
        async fn second(&self) -> u8;
        #[cfg(target_os = "linux")]
        #[cfg(not(target_os = "linux"))]
        async fn third(&self) -> Missing;
        async fn fourth(&self) -> u8;
    }
    struct Numbers;
    impl Conditional for Numbers {
        async fn second(&self) -> u8 {
            2
        }
        async fn fourth(&self) -> u8 {
            4
        }
    }
    let client = ConditionalClient::on(&Peer::new(ConditionalServer::new(Numbers)));
    assert_eq!(now(client.second()), Ok(2));
    assert_eq!(now(client.fourth()), Ok(4));
}

macro_rules! store {
    ($service:ident, $value:ty, $put:ident) => {
        #[macros::service]
        trait $service {
            async fn $put(&self, value: $value) -> Option<$value>;
            async fn fixed(&self, value: $value) -> u8 {
                drop(value);
                3
            }
        }
    };
}

#[test]
fn macro_rules_can_write_a_service() {
    store!(Store, Vec<u8>, put);
    struct Nothing;
    impl Store for Nothing {
        async fn put(&self, value: Vec<u8>) -> Option<Vec<u8>> {
            Some(value)
        }
    }
    let client = StoreClient::on(&Peer::new(StoreServer::new(Nothing)));
    assert_eq!(now(client.put(vec![1])), Ok(Some(vec![1])));
    assert_eq!(now(client.fixed(vec![1])), Ok(3));
    assert_eq!(
        StoreClient::PROCEDURES[0].1,
        "Store.put(Vec<u8>) -> Option<Vec<u8>>"
    );
}

/// Services that nobody uses: what is generated gives no warning of its own.
mod unused {
    #[urpc_macros::service]
    trait Unused {
        async fn never(&self, a: u8);
    }
    #[urpc_macros::service]
    trait Empty {}
    #[urpc_macros::service]
    #[deprecated]
    trait Old {
        #[deprecated]
        async fn never(&self);
    }
}

/// What is not deprecated leaves a crate free to forbid it.
#[forbid(deprecated)]
mod forbidden {
    #[urpc_macros::service]
    pub(crate) trait Modern {
        /// Not deprecated.
        async fn used(&self) -> u8;
    }
}

/// Who speaks of deprecation is not told of it again.
mod deprecated {
    #[deprecated]
    pub(crate) struct Gone;

    #[urpc_macros::service]
    #[expect(deprecated)]
    pub(crate) trait Old {
        async fn gone(&self) -> Gone;
    }

    #[urpc_macros::service]
    pub(crate) trait Older {
        #[expect(deprecated)]
        async fn gone(&self) -> Gone;
        #[allow(deprecated)]
        async fn put(&self, gone: Gone);
    }

    #[urpc_macros::service]
    #[cfg_attr(all(), deprecated)]
    pub(crate) trait Oldest {
        #[cfg_attr(all(), deprecated)]
        async fn never(&self);
    }
}

mod entry {
    use super::{PROCESSORS, macros};

    const THREE: usize = 3;

    #[macros::main]
    async fn plain() -> Result<u8, std::num::ParseIntError> {
        let number = "7".parse()?;
        Ok(number)
    }

    #[macros::main(processors = THREE - 3)]
    pub(crate) async fn with_processors() {}

    #[test]
    fn main_gives_what_its_body_gives() {
        assert_eq!(plain(), Ok(7));
        assert_eq!(PROCESSORS.get(), None);
    }

    #[test]
    fn the_option_sets_the_processors() {
        with_processors();
        assert_eq!(PROCESSORS.get(), Some(0));
    }

    #[macros::test(processors = 2)]
    #[should_panic(expected = "two processors")]
    async fn a_test_runs_in_a_runtime() {
        assert_ne!(PROCESSORS.get(), Some(2), "two processors");
    }

    #[macros::test]
    async fn a_test_may_give_a_result() -> Result<(), std::num::ParseIntError> {
        assert_eq!("7".parse::<u8>()?, 7);
        Ok(())
    }
}
