//! An expansion means the same whatever the user's module calls things, and wherever it finds urpc.

use super::{PROCESSORS, Peer, macros, now};

/// A module in which every common name means something else.
mod shadows {
    pub(crate) struct S(pub(crate) u8);
    pub(crate) struct Result;
    #[expect(dead_code, reason = "only their names matter")]
    mod names {
        pub(super) struct Vec;
        pub(super) struct Option;
        pub(super) struct Arc;
        pub(super) struct Box;
        pub(super) trait Future {}
        pub(super) trait Send {}
        pub(super) trait Sync {}
        pub(super) trait Clone {
            fn clone(&self) {}
        }
        impl<T> Clone for T {}
        pub(super) mod core {}
        pub(super) mod std {}
        pub(super) mod urpc {}
        #[expect(non_camel_case_types)]
        pub(super) struct str;
        #[expect(non_camel_case_types)]
        pub(super) struct usize;
    }
    #[expect(unused_imports, reason = "only their names matter")]
    use names::*;

    #[urpc_macros::service]
    pub(crate) trait Odd {
        #[expect(clippy::wrong_self_convention, reason = "the trait alone is reported")]
        async fn new(&self, service: S, stub: u8, argument0: u8) -> S;
        async fn call(&self, name: S) -> Result;
        async fn r#move(&self, r#type: u8) -> u8;
        #[allow(non_snake_case)]
        async fn Loud(&self, VALUE: u8) -> u8;
        #[deprecated]
        async fn old(&self) -> u8;
        #[cfg(target_os = "linux")]
        async fn conditional(&self) -> u8;
        async fn last(&self) -> u8;
    }

    pub(crate) struct Same;
    impl Odd for Same {
        async fn new(&self, service: S, stub: u8, argument0: u8) -> S {
            S(service.0 + stub + argument0)
        }
        async fn call(&self, _: S) -> Result {
            Result
        }
        async fn r#move(&self, r#type: u8) -> u8 {
            r#type
        }
        async fn Loud(&self, value: u8) -> u8 {
            value
        }
        async fn old(&self) -> u8 {
            1
        }
        async fn conditional(&self) -> u8 {
            2
        }
        async fn last(&self) -> u8 {
            3
        }
    }
}

#[test]
fn an_expansion_means_the_same_whatever_the_module_calls_things() {
    use shadows::{OddClient, OddServer, Result, S, Same};
    let client = OddClient::on(&Peer::new(OddServer::new(Same)));
    assert!(matches!(now(client.new(S(1), 2, 3)), Ok(S(6))));
    assert!(matches!(now(client.call(S(0))), Ok(Result)));
    assert_eq!(now(client.r#move(7)), Ok(7));
    assert_eq!(now(client.Loud(8)), Ok(8));
    #[expect(
        deprecated,
        reason = "the client's method is as deprecated as the trait's"
    )]
    let old = client.old();
    assert_eq!(now(old), Ok(1));
    assert_eq!(now(client.last()), Ok(3));
}

#[test]
fn a_trait_may_be_called_as_type_parameters_are() {
    #[macros::service]
    trait S {
        async fn one(&self) -> u8;
    }
    struct One;
    impl S for One {
        async fn one(&self) -> u8 {
            1
        }
    }
    let client = SClient::on(&Peer::new(SServer::new(One)));
    assert_eq!(now(client.one()), Ok(1));
}

/// Where whoever knows nothing of urpc finds it.
mod facade {
    pub(crate) use urpc as rpc;

    macro_rules! echo {
        ($service:ident) => {
            #[macros::service(name = "Echo", crate = $crate::names::facade::rpc)]
            pub(crate) trait $service {
                /// What it is given.
                async fn echo(&self, value: u8) -> u8;
            }
        };
    }
    pub(crate) use echo;
}

mod through_a_facade {
    use super::facade::{echo, rpc};
    use super::macros;

    #[macros::service(crate = rpc)]
    pub(crate) trait Double {
        async fn double(&self, value: u8) -> u8;
    }
    echo!(Echo);

    pub(crate) struct Both;
    impl Double for Both {
        async fn double(&self, value: u8) -> u8 {
            value * 2
        }
    }
    impl Echo for Both {
        async fn echo(&self, value: u8) -> u8 {
            value
        }
    }

    #[macros::main(crate = super::facade::rpc, processors = 0)]
    pub(crate) async fn with_the_option() {}

    #[macros::test(crate = crate::names::facade::rpc)]
    async fn a_test_may_have_the_option() {}
}

#[test]
fn urpc_may_be_found_elsewhere() {
    use through_a_facade::{Both, DoubleClient, DoubleServer, EchoClient, EchoServer};
    let client = DoubleClient::on(&Peer::new(DoubleServer::new(Both)));
    assert_eq!(now(client.double(2)), Ok(4));
    let client = EchoClient::on(&Peer::new(EchoServer::new(Both)));
    assert_eq!(now(client.echo(2)), Ok(2));
    through_a_facade::with_the_option();
    assert_eq!(PROCESSORS.get(), Some(0));
}
