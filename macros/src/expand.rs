//! What a service becomes: the trait with its methods as futures, a server, a client.
//!
//! Names from the user's code are used only where the user's module would understand them in the
//! same way: types stand in no scope that adds names but `__S`, arguments have numbers in the
//! server, and methods are called by full path, whatever else is called `add` or `clone`.

use proc_macro2::{Literal, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{AttrStyle, Attribute, Ident, ItemTrait, TraitItem, parse_quote, parse_quote_spanned};

use crate::service::{Procedure, Service};
use crate::signature;

/// The trait, the server and the client.
pub(crate) fn expand(service: &Service) -> TokenStream {
    let parts = [
        definition(service).into_token_stream(),
        server(service),
        client(service),
    ];
    parts.into_iter().collect()
}

/// The trait, so that plain `async fn`s implement it and their futures may change processors.
fn definition(service: &Service) -> ItemTrait {
    let mut item = service.item.clone();
    item.colon_token.get_or_insert_default();
    item.supertraits.push(parse_quote!(::core::marker::Send));
    item.supertraits.push(parse_quote!(::core::marker::Sync));
    item.supertraits.push(parse_quote!('static));
    item.items = service
        .procedures
        .iter()
        .map(method)
        .map(TraitItem::Fn)
        .collect();
    item
}

/// A method of the trait: `async fn` with the promise that its future is `Send`.
fn method(procedure: &Procedure) -> syn::TraitItemFn {
    let mut function = procedure.function.clone();
    let result = &procedure.result;
    function.sig.asyncness = None;
    function.sig.output = parse_quote_spanned! {here(&function.sig.ident)=>
        -> impl ::core::future::Future<Output = #result> + ::core::marker::Send
    };
    if let Some(body) = &function.default {
        let statements = &body.stmts;
        // An async block cannot name its output, and a signature's `impl` does not tell it. The
        // `return` does: after it, the body's results are coerced to that type.
        function.default = Some(parse_quote!({
            async move {
                if let ::core::option::Option::Some(output) = ::core::option::Option::None::<#result> {
                    return output;
                }
                #(#statements)*
            }
        }));
    }
    function
}

/// `CalcServer<S>`: the procedures of the trait, carried out by an `S`.
fn server(service: &Service) -> TokenStream {
    let Service { item, urpc, .. } = service;
    let ItemTrait { ident, vis, .. } = item;
    let name = format_ident!("{ident}Server");
    let (shared, public) = (shared(service), public(service));
    let about = format!("Answers calls to [`{ident}`]: give it to `urpc::serve(..).add(..)`.");
    let new = format!("A server of [`{ident}`] whose calls all share the one `service`.");
    let text = name.to_string();
    let procedures = service
        .procedures
        .iter()
        .map(|procedure| entry(service, procedure));
    quote! {
        #[doc = #about]
        #[doc = ""]
        #[doc = "Clones share the service."]
        #shared
        #(#public)*
        #[allow(dead_code)]
        #vis struct #name<S> {
            service: ::std::sync::Arc<S>,
        }

        #shared
        #[allow(dead_code)]
        impl<__S: #ident> #name<__S> {
            #[doc = #new]
            #vis fn new(service: __S) -> Self {
                Self { service: ::std::sync::Arc::new(service) }
            }
        }

        #shared
        impl<S> ::core::clone::Clone for #name<S> {
            fn clone(&self) -> Self {
                Self { service: ::core::clone::Clone::clone(&self.service) }
            }
        }

        #shared
        impl<S> ::core::fmt::Debug for #name<S> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(#text).finish_non_exhaustive()
            }
        }

        #shared
        #[allow(clippy::all, clippy::pedantic)]
        impl<__S: #ident> #urpc::Service for #name<__S> {
            fn procedures(self) -> ::std::vec::Vec<#urpc::__private::Procedure> {
                ::core::convert::From::from([#(#procedures),*])
            }
        }
    }
}

/// One procedure of the server. A call takes the service along, for it may outlive the server, and gives it back.
fn entry(service: &Service, procedure: &Procedure) -> TokenStream {
    let Procedure {
        function,
        name,
        signature,
        arguments,
        ..
    } = procedure;
    let conditions = attributes(&function.attrs, &["cfg"]);
    let deprecation = deprecation(&function.attrs);
    let method = &function.sig.ident;
    let at = here(method);
    let (ident, urpc) = (&service.item.ident, shown(&service.urpc, at));
    let numbered: Vec<_> = (0..arguments.len())
        .map(|n| format_ident!("argument{n}"))
        .collect();
    let (names, types) = (
        tuple(at, &numbered),
        tuple(at, arguments.iter().map(|(_, ty)| ty)),
    );
    quote_spanned! {at=>
        #(#conditions)*
        #deprecation
        #urpc::__private::Procedure::of(
            #name,
            #signature,
            ::core::clone::Clone::clone(&self.service),
            |service: ::std::sync::Arc<__S>, #names: #types| async move {
                let result = <__S as #ident>::#method(&service #(, #numbered)*).await;
                (service, result)
            },
        )
    }
}

/// `CalcClient`: the methods of the trait, as calls.
fn client(service: &Service) -> TokenStream {
    let Service { item, urpc, .. } = service;
    let ItemTrait { ident, vis, .. } = item;
    let name = format_ident!("{ident}Client");
    let (shared, public) = (shared(service), public(service));
    let about = format!("Calls the methods of [`{ident}`] in another process.");
    let rows = service.procedures.iter().map(
        |Procedure {
             function,
             name,
             signature,
             ..
         }| {
            let conditions = attributes(&function.attrs, &["cfg"]);
            quote!(#(#conditions)* (#name, #signature))
        },
    );
    let places = places(&service.procedures);
    let calls = service
        .procedures
        .iter()
        .zip(places)
        .map(|(procedure, place)| call(service, procedure, &place));
    quote! {
        #[doc = #about]
        #[doc = ""]
        #[doc = "Clones share the channel."]
        #shared
        #(#public)*
        #[allow(dead_code)]
        #[derive(::core::clone::Clone, ::core::fmt::Debug)]
        #vis struct #name {
            stub: #urpc::__private::Stub,
        }

        #shared
        #[allow(dead_code, non_snake_case, clippy::all, clippy::pedantic)]
        impl #name {
            /// The name and the signature of every procedure, in the order of the trait.
            #vis const PROCEDURES: &'static [(
                &'static ::core::primitive::str,
                &'static ::core::primitive::str,
            )] = &[#(#rows),*];

            /// Binds to the server that listens under `name`.
            ///
            /// # Errors
            ///
            /// Fails at once if nobody listens there. A peer that was waited for, by `Connect::wait_for_server`, goes
            /// to [`on`](Self::on).
            ///
            /// # Cancellation
            ///
            /// Dropping the future gives up binding; nothing has been called.
            #vis async fn connect(name: &::core::primitive::str) -> #urpc::Result<Self> {
                let stub = #urpc::__private::Stub::connect(name, Self::PROCEDURES).await?;
                ::core::result::Result::Ok(Self { stub })
            }

            /// A client of another service on the same channel.
            ///
            /// This asks the server nothing: a method that the server does not have, or has with
            /// another signature, fails when it is called, before anything is sent.
            #vis fn on(peer: &#urpc::Peer) -> Self {
                Self { stub: #urpc::__private::Stub::on(peer, Self::PROCEDURES) }
            }

            /// Checks that the server has every procedure, with the same signature.
            ///
            /// # Errors
            ///
            /// Says what differs.
            #vis fn check(&self) -> #urpc::Result<()> {
                self.stub.check()
            }

            /// The process that is called.
            #vis fn peer(&self) -> &#urpc::Peer {
                self.stub.peer()
            }

            #(#calls)*
        }
    }
}

/// One method of the client.
fn call(service: &Service, procedure: &Procedure, place: &TokenStream) -> TokenStream {
    let Service { item, urpc, .. } = service;
    let vis = &item.vis;
    let Procedure {
        function,
        name,
        arguments,
        result,
        ..
    } = procedure;
    let carried = attributes(&function.attrs, &["allow", "cfg", "deprecated", "doc"]);
    let deprecation = deprecation(&function.attrs);
    let method = &function.sig.ident;
    let at = here(method);
    let parameters = arguments.iter().map(|(name, ty)| quote!(#name: #ty));
    let values = tuple(at, arguments.iter().map(|(name, _)| name));
    let error = match signature::text(urpc) {
        // Documentation knows no `$crate`.
        path if path.starts_with('$') => "`CallError`".to_owned(),
        path => format!("[`CallError`]({path}::CallError)"),
    };
    let about = format!(
        "Calls `{name}`, once it is polled. Awaiting it gives a {error} \
         if the call itself fails, which says whether the procedure can have run; dropping it \
         cancels the call."
    );
    let body = quote_spanned!(at=> self.stub.call(#place, #values));
    quote! {
        #(#carried)*
        #deprecation
        #[doc = ""]
        #[doc = #about]
        #vis fn #method(&self #(, #parameters)*) -> #urpc::Call<#result> {
            #body
        }
    }
}

/// The place of each procedure in `PROCEDURES`. Only the compiler knows which `#[cfg]`s hold, so
/// it counts those.
fn places(procedures: &[Procedure]) -> Vec<TokenStream> {
    let mut certain = 0;
    let mut uncertain = Vec::new();
    let mut places = Vec::new();
    for procedure in procedures {
        let number = Literal::usize_suffixed(certain);
        places.push(quote!(#number #(+ #uncertain)*));
        let conditions = procedure.conditions();
        if conditions.is_empty() {
            certain += 1;
        } else {
            uncertain.push(quote!(
                ::core::cfg!(all(#(#conditions),*)) as ::core::primitive::usize
            ));
        }
    }
    places
}

/// `()`, `(a,)`, `(a, b)`.
fn tuple(at: Span, elements: impl IntoIterator<Item = impl ToTokens>) -> TokenStream {
    let elements: Vec<_> = elements.into_iter().collect();
    match &*elements {
        [one] => quote_spanned!(at=> (#one,)),
        elements => quote_spanned!(at=> (#(#elements),*)),
    }
}

/// Where a fault in the code made for `ident` is shown, with the names of the expansion.
fn here(ident: &Ident) -> Span {
    ident.span().resolved_at(Span::call_site())
}

/// `path`, which means what it meant, with its faults shown `at` another place.
fn shown(path: &syn::Path, at: Span) -> TokenStream {
    let located = |mut token: TokenTree| {
        token.set_span(token.span().located_at(at));
        token
    };
    path.to_token_stream().into_iter().map(located).collect()
}

/// Those outer attributes that have one of these names.
fn attributes<'a>(attributes: &'a [Attribute], names: &[&str]) -> Vec<&'a Attribute> {
    let has_name = |attribute: &&Attribute| {
        matches!(attribute.style, AttrStyle::Outer)
            && names.iter().any(|name| attribute.path().is_ident(name))
    };
    attributes.iter().filter(has_name).collect()
}

/// The attributes of the trait that hold for the code made from it as well.
fn shared(service: &Service) -> TokenStream {
    let all = &service.item.attrs;
    let (shared, deprecation) = (attributes(all, &["allow", "cfg"]), deprecation(all));
    quote!(#(#shared)* #deprecation)
}

/// Allows what is deprecated to be used, where `attributes` speak of that: anywhere else this would
/// be an error in a crate that forbids it.
fn deprecation(attributes: &[Attribute]) -> Option<TokenStream> {
    let speaks = |attribute: &Attribute| mentions(attribute.to_token_stream(), "deprecated");
    let spoken = attributes.iter().any(speaks);
    spoken.then(|| quote!(#[allow(deprecated)]))
}

/// Whether `word` is one of the tokens.
fn mentions(tokens: TokenStream, word: &str) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == word,
        TokenTree::Group(group) => mentions(group.stream(), word),
        _ => false,
    })
}

/// The attributes of the trait that hold for its server and client as types, besides [`shared`].
fn public(service: &Service) -> Vec<&Attribute> {
    let is_hidden = |attribute: &&Attribute| {
        attribute
            .parse_args::<Ident>()
            .is_ok_and(|argument| argument == "hidden")
    };
    let all = &service.item.attrs;
    let hidden = attributes(all, &["doc"]).into_iter().filter(is_hidden);
    attributes(all, &["deprecated"])
        .into_iter()
        .chain(hidden)
        .collect()
}

#[cfg(test)]
mod tests;
