//! The key parts of what a service becomes, compared as tokens. That an expansion compiles and
//! works is shown in `tests/expansions.rs`.

use super::*;

fn expanded(item: TokenStream) -> String {
    expanded_with(TokenStream::new(), item)
}

fn expanded_with(args: TokenStream, item: TokenStream) -> String {
    let service = Service::parse(args, item).unwrap_or_else(|e| panic!("{e}"));
    let tokens = expand(&service);
    syn::parse2::<syn::File>(tokens.clone()).expect("an expansion is Rust");
    tokens.to_string()
}

/// `expected` is a part of the expansion of `item`.
#[track_caller]
fn assert_part(item: TokenStream, expected: TokenStream) {
    let (expanded, expected) = (expanded(item), expected.to_string());
    assert!(
        expanded.contains(&expected),
        "no\n  {expected}\nin\n  {expanded}"
    );
}

fn calc() -> TokenStream {
    quote! {
        /// Sums.
        pub trait Calc {
            /// The sum.
            async fn add(&self, a: i64, b: i64) -> i64;
            async fn neg(&self, a: i64) -> i64;
            async fn stop(&self);
        }
    }
}

#[test]
fn methods_become_futures_that_may_change_processors() {
    assert_part(
        calc(),
        quote! {
            pub trait Calc: ::core::marker::Send + ::core::marker::Sync + 'static {
                #[doc = r" The sum."]
                fn add(&self, a: i64, b: i64)
                    -> impl ::core::future::Future<Output = i64> + ::core::marker::Send;
                fn neg(&self, a: i64)
                    -> impl ::core::future::Future<Output = i64> + ::core::marker::Send;
                fn stop(&self)
                    -> impl ::core::future::Future<Output = ()> + ::core::marker::Send;
            }
        },
    );
}

#[test]
fn supertraits_stay() {
    assert_part(
        quote!(
            trait Calc: Named {}
        ),
        quote!(
            trait Calc: Named + ::core::marker::Send + ::core::marker::Sync + 'static {}
        ),
    );
}

#[test]
fn a_default_body_becomes_an_async_block() {
    assert_part(
        quote!(
            trait Calc {
                async fn neg(&self, mut a: i64) -> i64 {
                    a *= -1;
                    a
                }
            }
        ),
        quote! {
            fn neg(&self, mut a: i64)
                -> impl ::core::future::Future<Output = i64> + ::core::marker::Send
            {
                async move {
                    if let ::core::option::Option::Some(output) = ::core::option::Option::None::<i64> {
                        return output;
                    }
                    a *= -1;
                    a
                }
            }
        },
    );
}

#[test]
fn the_server_calls_the_trait_by_full_path() {
    let closure = |names, types, arguments: TokenStream, method: TokenStream| {
        let (names, types): (TokenStream, TokenStream) = (names, types);
        quote! {
            |service: ::std::sync::Arc<__S>, #names: #types| async move {
                let result = <__S as Calc>::#method(&service #arguments).await;
                (service, result)
            },
        }
    };
    let add = closure(
        quote!((argument0, argument1)),
        quote!((i64, i64)),
        quote!(, argument0, argument1),
        quote!(add),
    );
    assert_part(
        calc(),
        quote!(::urpc::__private::Procedure::of(
            "Calc.add",
            "Calc.add(i64, i64) -> i64",
            ::core::clone::Clone::clone(&self.service),
            #add
        )),
    );
    assert_part(
        calc(),
        closure(
            quote!((argument0,)),
            quote!((i64,)),
            quote!(, argument0),
            quote!(neg),
        ),
    );
    assert_part(
        calc(),
        closure(quote!(()), quote!(()), quote!(), quote!(stop)),
    );
}

#[test]
fn the_client_calls_by_place() {
    assert_part(
        calc(),
        quote! {
            pub const PROCEDURES: &'static [(
                &'static ::core::primitive::str,
                &'static ::core::primitive::str,
            )] = &[
                ("Calc.add", "Calc.add(i64, i64) -> i64"),
                ("Calc.neg", "Calc.neg(i64) -> i64"),
                ("Calc.stop", "Calc.stop() -> ()")
            ];
        },
    );
    assert_part(
        calc(),
        quote!(
            pub fn add(&self, a: i64, b: i64) -> ::urpc::Call<i64> {
                self.stub.call(0usize, (a, b))
            }
        ),
    );
    assert_part(
        calc(),
        quote!(
            pub fn neg(&self, a: i64) -> ::urpc::Call<i64> {
                self.stub.call(1usize, (a,))
            }
        ),
    );
    assert_part(
        calc(),
        quote!(
            pub fn stop(&self) -> ::urpc::Call<()> {
                self.stub.call(2usize, ())
            }
        ),
    );
}

#[test]
fn urpc_is_named_only_as_the_option_says() {
    let expanded = expanded_with(quote!(crate = crate::rpc), calc());
    assert!(
        !expanded.contains(&quote!(::urpc).to_string()),
        "{expanded}"
    );
    assert!(
        expanded.contains("[`CallError`](crate::rpc::CallError)"),
        "{expanded}"
    );
    let call = quote!(crate::rpc::__private::Procedure::of("Calc.add"));
    let call = call.to_string();
    assert!(
        expanded.contains(call.trim_end_matches([' ', ')'])),
        "{expanded}"
    );
}

#[test]
fn the_documentation_of_a_method_is_the_clients_too() {
    assert_eq!(expanded(calc()).matches("The sum.").count(), 2);
}

#[test]
fn a_private_trait_has_a_private_client_and_server() {
    let expanded = expanded(quote!(
        trait Calc {
            async fn stop(&self);
        }
    ));
    assert!(!expanded.contains("pub"), "{expanded}");
}

#[test]
fn a_condition_is_everywhere_where_its_method_is() {
    let item = quote! {
        trait Calc {
            #[cfg(a)]
            async fn add(&self);
            #[cfg(b)]
            #[cfg(c)]
            async fn neg(&self);
            async fn stop(&self);
        }
    };
    // The trait, the server, the client's table, the client's method.
    let condition = quote!(#[cfg(a)]).to_string();
    assert_eq!(expanded(item.clone()).matches(&condition).count(), 4);
    assert_part(
        item,
        quote!(self.stub.call(
            0usize
                + ::core::cfg!(all(a)) as ::core::primitive::usize
                + ::core::cfg!(all(b, c)) as ::core::primitive::usize,
            ()
        )),
    );
}

#[test]
fn a_deprecated_procedure_is_deprecated_for_callers() {
    let item = quote!(
        trait Calc {
            #[deprecated]
            #[must_use]
            async fn stop(&self);
        }
    );
    let expanded = expanded(item);
    assert_eq!(
        expanded.matches(&quote!(#[deprecated]).to_string()).count(),
        2
    );
    assert_eq!(
        expanded.matches(&quote!(#[must_use]).to_string()).count(),
        1
    );
}

#[test]
fn a_hidden_trait_has_a_hidden_client_and_server() {
    let expanded = expanded(quote!(
        #[doc(hidden)]
        #[doc(alias = "sum")]
        trait Calc {}
    ));
    assert_eq!(
        expanded
            .matches(&quote!(#[doc(hidden)]).to_string())
            .count(),
        3
    );
    assert_eq!(expanded.matches("sum").count(), 1);
}
