//! `#[urpc::main]` and `#[urpc::test]`: an async function that a runtime runs.
//!
//! The function stays what it was, an async function with its body and its return type, inside a
//! plain one of the same name, attributes and visibility, which hands it to
//! `::urpc::__private::run`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Error, ItemFn, Result};

use crate::options::Options;

/// Which of the two macros it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Entry {
    /// `#[urpc::main]`
    Main,
    /// `#[urpc::test]`
    Test,
}

/// What `#[urpc::main(args)] item` or `#[urpc::test(args)] item` stands for: the faults, if any.
pub(crate) fn expand(entry: Entry, args: TokenStream, item: TokenStream) -> TokenStream {
    try_expand(entry, args, item.clone()).unwrap_or_else(|error| {
        let error = error.to_compile_error();
        // An empty function in its place, so that nobody misses `main`.
        let stand_in = syn::parse2(item).map(|ItemFn { vis, sig, .. }| {
            let ident = sig.ident;
            quote!(#[allow(dead_code)] #vis fn #ident() {})
        });
        let stand_in = stand_in.unwrap_or_default();
        quote!(#error #stand_in)
    })
}

fn try_expand(entry: Entry, args: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let (usage, attribute) = match entry {
        Entry::Main => (
            "#[urpc::main(processors = 2, crate = path::to::urpc)]",
            None,
        ),
        Entry::Test => (
            "#[urpc::test(processors = 2, crate = path::to::urpc)]",
            Some(quote!(#[::core::prelude::v1::test])),
        ),
    };
    let Options { own, urpc } = Options::parse(&args, "processors", usage)?;
    let processors = own.map_or_else(
        || quote!(::core::option::Option::None),
        |processors| quote!(::core::option::Option::Some(#processors)),
    );
    let Ok(function) = syn::parse2::<ItemFn>(item.clone()) else {
        // Not a function, or not even Rust: in the latter case the compiler knows better what.
        syn::parse2::<syn::Item>(item.clone())?;
        let message = "this goes on a function: write `async fn main() { .. }`";
        return Err(Error::new_spanned(item, message));
    };
    check(entry, &function)?;

    let ItemFn {
        attrs,
        vis,
        sig,
        block,
        ..
    } = &function;
    let (ident, output) = (&sig.ident, &sig.output);
    let (inner, outer): (Vec<_>, Vec<_>) = attrs.iter().partition(|attribute| is_inner(attribute));
    Ok(quote! {
        #(#outer)*
        #attribute
        #vis fn #ident() #output {
            #(#inner)*
            #[allow(clippy::unused_async)]
            #sig #block
            #urpc::__private::run(#processors, #ident())
        }
    })
}

fn is_inner(attribute: &Attribute) -> bool {
    matches!(attribute.style, syn::AttrStyle::Inner(_))
}

/// Checks that the function can be started with nothing.
fn check(entry: Entry, function: &ItemFn) -> Result<()> {
    let sig = &function.sig;
    if sig.asyncness.is_none() {
        let message = format!(
            "urpc runs an async function: write `async fn {}`",
            sig.ident
        );
        return Err(Error::new_spanned(sig.fn_token, message));
    }
    if !sig.inputs.is_empty() {
        let message = "nobody passes arguments to this function: remove them";
        return Err(Error::new_spanned(&sig.inputs, message));
    }
    if sig.generics.lt_token.is_some() || sig.generics.where_clause.is_some() {
        let message = "nobody chooses types for this function: remove the generics";
        return Err(Error::new_spanned(sig, message));
    }
    let is_test = |attribute: &&Attribute| {
        attribute
            .path()
            .segments
            .last()
            .is_some_and(|segment| segment.ident == "test")
    };
    if entry == Entry::Test
        && let Some(attribute) = function.attrs.iter().find(is_test)
    {
        let message = "`#[urpc::test]` makes this a test already: remove the other attribute";
        return Err(Error::new_spanned(attribute, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Entry::{Main, Test};

    /// The expansion of what has no faults.
    fn expanded(entry: Entry, args: TokenStream, item: TokenStream) -> String {
        try_expand(entry, args, item)
            .unwrap_or_else(|error| panic!("{error}"))
            .to_string()
    }

    fn fault(entry: Entry, args: TokenStream, item: TokenStream) -> String {
        try_expand(entry, args, item)
            .expect_err("this has a fault")
            .to_string()
    }

    #[test]
    fn main_runs_its_body_in_a_runtime() {
        let item = quote!(
            async fn main() -> urpc::Result<()> {
                work().await
            }
        );
        let expected = quote! {
            fn main() -> urpc::Result<()> {
                #[allow(clippy::unused_async)]
                async fn main() -> urpc::Result<()> { work().await }
                ::urpc::__private::run(::core::option::Option::None, main())
            }
        };
        assert_eq!(expanded(Main, quote!(), item), expected.to_string());
    }

    #[test]
    fn the_number_of_processors_is_any_expression() {
        let item = quote!(
            async fn main() {}
        );
        for processors in [quote!(0), quote!(2), quote!(crate::limits::PROCESSORS)] {
            let expected =
                quote!(::urpc::__private::run(::core::option::Option::Some(#processors), main()));
            let expanded = expanded(Main, quote!(processors = #processors), item.clone());
            assert!(expanded.contains(&expected.to_string()), "{expanded}");
        }
    }

    #[test]
    fn the_runtime_is_found_where_the_option_says() {
        let item = quote!(
            async fn main() {}
        );
        let expanded = expanded(Main, quote!(crate = rpc), item);
        let expected = quote!(rpc::__private::run(::core::option::Option::None, main()));
        assert!(expanded.contains(&expected.to_string()), "{expanded}");
    }

    #[test]
    fn a_test_keeps_its_attributes() {
        let item = quote! {
            #[should_panic]
            async fn a_sum_is_wrong() { #![allow(unused)] panic!() }
        };
        let expected = quote! {
            #[should_panic]
            #[::core::prelude::v1::test]
            fn a_sum_is_wrong() {
                #![allow(unused)]
                #[allow(clippy::unused_async)]
                async fn a_sum_is_wrong() { panic!() }
                ::urpc::__private::run(::core::option::Option::None, a_sum_is_wrong())
            }
        };
        assert_eq!(expanded(Test, quote!(), item), expected.to_string());
    }

    #[test]
    fn a_wrong_option_is_answered_with_the_right_one() {
        let item = quote!(
            async fn main() {}
        );
        for args in [
            quote!(2),
            quote!(threads = 2),
            quote!(processors),
            quote!(processors = 2, pin = 1),
        ] {
            assert_eq!(
                fault(Main, args.clone(), item.clone()),
                "the options are `processors` and `crate`: \
                 write `#[urpc::main(processors = 2, crate = path::to::urpc)]`"
            );
            assert_eq!(
                fault(Test, args, item.clone()),
                "the options are `processors` and `crate`: \
                 write `#[urpc::test(processors = 2, crate = path::to::urpc)]`"
            );
        }
    }

    #[test]
    fn only_an_async_function_without_parameters_can_be_run() {
        for (item, expected) in [
            (
                quote!(
                    struct Main;
                ),
                "this goes on a function: write `async fn main() { .. }`",
            ),
            (
                quote!(
                    fn main() {}
                ),
                "urpc runs an async function: write `async fn main`",
            ),
            (
                quote!(
                    async fn main(a: u8) {}
                ),
                "nobody passes arguments to this function: remove them",
            ),
            (
                quote!(
                    async fn main<T>() {}
                ),
                "nobody chooses types for this function: remove the generics",
            ),
            (
                quote!(
                    async fn main()
                    where
                        u8: Copy,
                    {
                    }
                ),
                "nobody chooses types for this function: remove the generics",
            ),
        ] {
            assert_eq!(fault(Main, quote!(), item), expected);
        }
    }

    #[test]
    fn a_test_is_a_test_once() {
        for attribute in [quote!(#[test]), quote!(#[other::test])] {
            assert_eq!(
                fault(Test, quote!(), quote!(#attribute async fn sums() {})),
                "`#[urpc::test]` makes this a test already: remove the other attribute"
            );
        }
    }

    #[test]
    fn a_faulty_main_is_the_only_thing_reported() {
        let expanded = expand(
            Main,
            quote!(),
            quote!(
                fn main() {
                    work()
                }
            ),
        )
        .to_string();
        assert!(expanded.contains("compile_error"), "{expanded}");
        assert!(
            expanded.ends_with(
                &quote!(
                    fn main() {}
                )
                .to_string()
            ),
            "{expanded}"
        );
        assert!(!expanded.contains("work"), "{expanded}");
    }
}
