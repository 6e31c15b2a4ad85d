//! Every fault of a trait, and what is said about it.

use super::*;
use quote::quote;

/// What is said about the trait `item`.
fn faults(item: TokenStream) -> Vec<String> {
    faults_of(TokenStream::new(), item)
}

fn faults_of(args: TokenStream, item: TokenStream) -> Vec<String> {
    let error = Service::parse(args, item)
        .err()
        .expect("this is no service");
    error.into_iter().map(|error| error.to_string()).collect()
}

/// What is said about a trait with this one item.
fn faults_in(item: TokenStream) -> Vec<String> {
    faults(quote!(trait Calc { #item }))
}

fn service(args: TokenStream, item: TokenStream) -> Service {
    Service::parse(args, item).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_trait_of_async_methods_is_a_service() {
    let service = service(
        quote!(),
        quote! {
            pub trait Calc: Clone {
                async fn add(&self, a: i64, b: i64) -> i64;
                async fn r#move(&self, mut by: Vec<(u32, String)>) -> Result<(), Wall> { by.pop(); Ok(()) }
                async fn stop(&self);
            }
        },
    );
    let signatures: Vec<_> = service
        .procedures
        .iter()
        .map(|p| (&*p.name, &*p.signature))
        .collect();
    let expected = [
        ("Calc.add", "Calc.add(i64, i64) -> i64"),
        (
            "Calc.move",
            "Calc.move(Vec<(u32, String)>) -> Result<(), Wall>",
        ),
        ("Calc.stop", "Calc.stop() -> ()"),
    ];
    assert_eq!(signatures, expected);
}

#[test]
fn the_name_option_replaces_the_prefix() {
    for args in [quote!(name = "acme.Calc"), quote!(name = "acme.Calc",)] {
        let service = service(
            args,
            quote!(
                trait Calc {
                    async fn stop(&self);
                }
            ),
        );
        assert_eq!(service.procedures[0].signature, "acme.Calc.stop() -> ()");
    }
}

#[test]
fn a_wrong_option_is_answered_with_the_right_one() {
    let usage = "the options are `name` and `crate`: \
                 write `#[urpc::service(name = \"Other\", crate = path::to::urpc)]`";
    for args in [
        quote!(other = 1),
        quote!("Other"),
        quote!(name),
        quote!(name = "A", name = "B"),
    ] {
        assert_eq!(
            faults_of(
                args,
                quote!(
                    trait Calc {}
                )
            ),
            [usage]
        );
    }
    let name =
        "a service's name is a string of letters, digits and `_-.:/`: write `name = \"Other\"`";
    for args in [
        quote!(name = 1),
        quote!(name = ""),
        quote!(name = "a b"),
        quote!(name = "a("),
    ] {
        assert_eq!(
            faults_of(
                args,
                quote!(
                    trait Calc {}
                )
            ),
            [name]
        );
    }
}

#[test]
fn only_a_plain_trait_is_a_service() {
    let expected = "`#[urpc::service]` goes on a trait: \
                    write `trait Name { async fn method(&self, ..) -> ..; }`";
    assert_eq!(
        faults(quote!(
            struct Calc;
        )),
        [expected]
    );
    assert_eq!(faults(quote!(impl Calc for Sums {})), [expected]);
    let expected = "a service is a plain trait: remove `unsafe`";
    assert_eq!(
        faults(quote!(
            unsafe trait Calc {}
        )),
        [expected]
    );
    let expected = "a service is a plain trait: remove `auto`";
    assert_eq!(faults(quote!(auto trait Calc {})), [expected]);
}

#[test]
fn generics_are_faults() {
    let expected = "a service has no generics, for both processes agree on every type: \
                    write one trait for each";
    assert_eq!(
        faults(quote!(
            trait Calc<T> {}
        )),
        [expected]
    );
    assert_eq!(
        faults(quote!(
            trait Calc<'a> {}
        )),
        [expected]
    );
    assert_eq!(
        faults(quote!(
            trait Calc
            where
                Self: Sized,
            {
            }
        )),
        [expected]
    );
    let expected = "a procedure has no generics and no lifetimes, for both processes agree on \
                    every type: write one method for each";
    assert_eq!(
        faults_in(quote!(
            async fn add<T>(&self, a: T);
        )),
        [expected]
    );
    assert_eq!(
        faults_in(quote!(
            async fn add<'a>(&self);
        )),
        [expected]
    );
    assert_eq!(
        faults_in(quote!(
            async fn add(&self)
            where
                Self: Sized;
        )),
        [expected]
    );
}

#[test]
fn a_service_consists_of_methods() {
    for (item, thing) in [
        (
            quote!(
                type Sum;
            ),
            "associated type",
        ),
        (
            quote!(
                const ZERO: i64;
            ),
            "associated constant",
        ),
        (quote!(methods!();), "macro call"),
    ] {
        let expected = format!("a service consists of methods: move this {thing} elsewhere");
        assert_eq!(faults_in(item), [expected]);
    }
}

#[test]
fn a_procedure_is_a_plain_async_method() {
    let expected = "a procedure waits for another process: write `async fn add`";
    assert_eq!(
        faults_in(quote!(
            fn add(&self);
        )),
        [expected]
    );
    for (item, qualifier) in [
        (
            quote!(
                async unsafe fn add(&self);
            ),
            "unsafe",
        ),
        (
            quote!(
                async extern "C" fn add(&self);
            ),
            "extern \"C\"",
        ),
        (
            quote!(
                const async fn add(&self);
            ),
            "const",
        ),
        (
            quote!(
                async fn add(&self, ...);
            ),
            "...",
        ),
    ] {
        let expected = format!("a procedure is a plain `async fn`: remove `{qualifier}`");
        assert_eq!(faults_in(item), [expected]);
    }
}

#[test]
fn a_procedure_takes_the_service_by_shared_reference() {
    let expected = "a procedure is called on a service: make `&self` the first parameter";
    assert_eq!(
        faults_in(quote!(
            async fn add();
        )),
        [expected]
    );
    assert_eq!(
        faults_in(quote!(
            async fn add(a: i64);
        )),
        [expected]
    );
    let expected = "many calls share one service: take `&self`, and keep what changes in a lock \
                    or in atomics";
    for receiver in [
        quote!(self),
        quote!(mut self),
        quote!(&mut self),
        quote!(self: Arc<Self>),
    ] {
        assert_eq!(faults_in(quote!(async fn add(#receiver);)), [expected]);
    }
    let expected = "a procedure has no lifetimes: remove `'static`";
    assert_eq!(
        faults_in(quote!(
            async fn add(&'static self);
        )),
        [expected]
    );
}

#[test]
fn an_argument_is_a_name_with_an_owned_type() {
    let expected = "an argument is a plain name, not a pattern: name it";
    for pattern in [quote!((a, b)), quote!(_), quote!(ref a), quote!(a @ 1)] {
        assert_eq!(
            faults_in(quote!(async fn add(&self, #pattern: T);)),
            [expected]
        );
    }
    let expected = "`mut` is up to the implementation: remove it here";
    assert_eq!(
        faults_in(quote!(
            async fn add(&self, mut a: i64);
        )),
        [expected]
    );
    let expected = "arguments are owned: use `String`";
    assert_eq!(
        faults_in(quote!(
            async fn add(&self, a: &str);
        )),
        [expected]
    );
    let expected = "results are owned: use `Vec<u8>`";
    assert_eq!(
        faults_in(quote!(
            async fn all(&self) -> &[u8];
        )),
        [expected]
    );
}

#[test]
fn a_condition_is_on_the_method_and_in_plain_sight() {
    let expected = "the arguments are part of the signature: put the `#[cfg]` on the method";
    for attribute in [quote!(cfg(test)), quote!(cfg_attr(a, cfg(b)))] {
        assert_eq!(
            faults_in(quote!(async fn add(&self, #[#attribute] a: i64);)),
            [expected]
        );
    }
    let expected = "a procedure's place depends on each `#[cfg]` before it: \
                    write `#[cfg(..)]` itself, not inside `#[cfg_attr]`";
    assert_eq!(
        faults_in(quote!(
            #[cfg_attr(a, cfg(b))]
            async fn add(&self);
        )),
        [expected]
    );
}

#[test]
fn a_conditional_attribute_that_is_no_condition_is_fine() {
    let item = quote! {
        trait Calc {
            #[cfg_attr(a, allow(unused))]
            async fn add(&self, #[cfg_attr(a, allow(unused))] a: i64);
        }
    };
    assert_eq!(service(quote!(), item).procedures.len(), 1);
}

#[test]
fn sixteen_arguments_are_the_most() {
    let arguments = |count: usize| {
        let names = (0..count).map(|n| quote::format_ident!("a{n}"));
        quote!(trait Calc { async fn add(&self, #(#names: u8),*); })
    };
    assert_eq!(
        service(quote!(), arguments(16)).procedures[0]
            .arguments
            .len(),
        16
    );
    let expected = "a procedure has at most 16 arguments, not 17: gather some in a struct";
    assert_eq!(faults(arguments(17)), [expected]);
}

#[test]
fn names_are_taken_once() {
    let expected = "there already is a procedure `Calc.add`: rename one";
    assert_eq!(
        faults_in(quote!(
            async fn add(&self);
            async fn r#add(&self);
        )),
        [expected]
    );
    for name in ["check", "clone", "connect", "on", "peer"] {
        let ident = quote::format_ident!("{name}");
        let expected = format!("`{name}` is `CalcClient`'s own: choose another name");
        assert_eq!(faults_in(quote!(async fn #ident(&self);)), [expected]);
    }
}

#[test]
fn of_two_conditional_procedures_one_may_exist_at_a_time() {
    let item = quote! {
        trait Calc {
            #[cfg(unix)] async fn add(&self);
            #[cfg(not(unix))] async fn add(&self);
        }
    };
    assert_eq!(service(quote!(), item).procedures.len(), 2);
}

#[test]
fn all_faults_are_reported_at_once() {
    let item = quote!(
        trait Calc<T> {
            type A;
            fn add(&self, a: &str);
            async fn on(&self);
        }
    );
    assert_eq!(faults(item).len(), 5);
}
