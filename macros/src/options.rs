//! What stands in the parentheses of a macro: an option of its own, and where the crate urpc is.

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::{Error, Expr, MetaNameValue, Path, Result, Token, parse_quote};

/// The options given to a macro.
pub(crate) struct Options {
    /// The value of the macro's own option, if it is given.
    pub(crate) own: Option<Expr>,
    /// How the user's module calls the crate: `::urpc`, unless `crate = path` says otherwise.
    pub(crate) urpc: Path,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            own: None,
            urpc: parse_quote!(::urpc),
        }
    }
}

impl Options {
    /// Reads `name = value, crate = path`, each at most once.
    ///
    /// # Errors
    ///
    /// Anything else is answered with `usage`.
    pub(crate) fn parse(args: &TokenStream, name: &str, usage: &str) -> Result<Self> {
        let wrong = || {
            let message = format!("the options are `{name}` and `crate`: write `{usage}`");
            Error::new_spanned(args, message)
        };
        let given = Punctuated::<MetaNameValue, Token![,]>::parse_terminated
            .parse2(args.clone())
            .map_err(|_| wrong())?;
        let (mut own, mut urpc) = (None, None);
        for option in given {
            if option.path.is_ident(name) && own.is_none() {
                own = Some(option.value);
            } else if option.path.is_ident("crate") && urpc.is_none() {
                urpc = Some(path(&option.value)?);
            } else {
                return Err(wrong());
            }
        }
        let urpc = urpc.unwrap_or_else(|| Self::default().urpc);
        Ok(Self { own, urpc })
    }
}

/// The path that `crate = ..` gives.
fn path(value: &Expr) -> Result<Path> {
    Path::parse_mod_style
        .parse2(value.to_token_stream())
        .map_err(|_| {
            let message = "this is where the crate urpc is: write `crate = path::to::urpc`";
            Error::new_spanned(value, message)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::quote;

    fn parsed(args: TokenStream) -> Result<Options> {
        Options::parse(&args, "name", "#[example(name = 1)]")
    }

    #[test]
    fn the_crate_is_found_where_the_option_says() {
        for (args, expected) in [
            (quote!(), quote!(::urpc)),
            (quote!(name = 1), quote!(::urpc)),
            (quote!(crate = rpc), quote!(rpc)),
            (quote!(crate = ::rpc, name = 1), quote!(::rpc)),
            (
                quote!(name = 1, crate = crate::a::urpc,),
                quote!(crate::a::urpc),
            ),
        ] {
            let has_own = args.to_string().contains("name");
            let options = parsed(args).expect("these are options");
            assert_eq!(
                options.urpc.to_token_stream().to_string(),
                expected.to_string()
            );
            assert_eq!(options.own.is_some(), has_own);
        }
    }

    #[test]
    fn what_is_no_path_is_no_crate() {
        for value in [
            quote!("rpc"),
            quote!(1),
            quote!(rpc::<u8>),
            quote!(<A as B>::rpc),
        ] {
            assert_eq!(
                parsed(quote!(crate = #value))
                    .err()
                    .expect("this is no path")
                    .to_string(),
                "this is where the crate urpc is: write `crate = path::to::urpc`"
            );
        }
    }

    #[test]
    fn each_option_is_given_once() {
        for args in [
            quote!(crate = a, crate = b),
            quote!(name = 1, name = 2),
            quote!(crate),
        ] {
            assert_eq!(
                parsed(args).err().expect("this is wrong").to_string(),
                "the options are `name` and `crate`: write `#[example(name = 1)]`"
            );
        }
    }
}
