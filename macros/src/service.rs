//! What a service is: a trait, checked.
//!
//! Whoever holds a [`Service`] need not check again: it has no generics, every method is an
//! `async fn` that takes `&self` and named, owned arguments, and names collide neither with one
//! another nor with the client's own methods. All faults of a trait are reported at once, each
//! where it stands and with what to write instead.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::{
    Attribute, Error, Expr, ExprLit, FnArg, Ident, Item, ItemTrait, Lit, Pat, PatType, Path,
    Receiver, ReceiverKind, Result, ReturnType, Safety, TraitItem, TraitItemFn, Type, parse_quote,
};

use crate::options::Options;
use crate::signature;

/// The most arguments that a procedure has: serde's tuples, as which they travel, end here.
const MAX_ARGUMENTS: usize = 16;

/// The client's own items. A procedure of such a name would hide one of them: `client.clone()`
/// would be a call.
const RESERVED: [&str; 6] = ["PROCEDURES", "check", "clone", "connect", "on", "peer"];

/// A trait that can be called from another process.
pub(crate) struct Service {
    /// The trait as written, without its methods.
    pub(crate) item: ItemTrait,
    /// Its methods, in the order of the trait.
    pub(crate) procedures: Vec<Procedure>,
    /// How its module calls the crate urpc.
    pub(crate) urpc: Path,
}

/// A method of the trait.
pub(crate) struct Procedure {
    /// The method as written.
    pub(crate) function: TraitItemFn,
    /// Its name on the wire: `Calc.add`.
    pub(crate) name: String,
    /// Its signature on the wire: `Calc.add(i64, i64) -> i64`.
    pub(crate) signature: String,
    /// Its arguments, without `&self`.
    pub(crate) arguments: Vec<(Ident, Type)>,
    /// What it returns, `()` if nothing is written.
    pub(crate) result: Type,
}

/// The faults found so far.
#[derive(Default)]
struct Faults(Option<Error>);

impl Faults {
    /// Notes that `tokens` are wrong, and what to write instead.
    fn at(&mut self, tokens: impl ToTokens, message: impl AsRef<str>) {
        self.add(Error::new_spanned(tokens, message.as_ref()));
    }

    fn add(&mut self, fault: Error) {
        match &mut self.0 {
            None => self.0 = Some(fault),
            Some(faults) => faults.combine(fault),
        }
    }

    /// As [`Faults::at`], if there is something at all.
    fn unwanted(&mut self, tokens: Option<impl ToTokens>, message: impl AsRef<str>) {
        if let Some(tokens) = tokens {
            self.at(tokens, message);
        }
    }
}

impl Service {
    /// Reads `#[urpc::service(args)] item`.
    ///
    /// # Errors
    ///
    /// All faults of the item, combined, each with what to do about it.
    pub(crate) fn parse(args: TokenStream, item: TokenStream) -> Result<Self> {
        let mut item = match syn::parse2(item)? {
            Item::Trait(item) => item,
            other => {
                let message = "`#[urpc::service]` goes on a trait: \
                               write `trait Name { async fn method(&self, ..) -> ..; }`";
                return Err(Error::new_spanned(other, message));
            }
        };
        let mut faults = Faults::default();
        let usage = "#[urpc::service(name = \"Other\", crate = path::to::urpc)]";
        let Options { own, urpc } = Options::parse(&args, "name", usage).unwrap_or_else(|fault| {
            faults.add(fault);
            Options::default()
        });
        let prefix = own.map(prefix).transpose().unwrap_or_else(|fault| {
            faults.add(fault);
            None
        });
        let prefix = prefix.unwrap_or_else(|| item.ident.unraw().to_string());
        check_trait(&item, &mut faults);

        let mut procedures: Vec<Procedure> = Vec::new();
        for item in std::mem::take(&mut item.items) {
            let (thing, tokens) = match item {
                TraitItem::Fn(function) => {
                    procedures.extend(Procedure::check(&prefix, function, &mut faults));
                    continue;
                }
                TraitItem::Type(item) => ("associated type", item.to_token_stream()),
                TraitItem::Const(item) => ("associated constant", item.to_token_stream()),
                other => ("macro call", other.to_token_stream()),
            };
            let message = format!("a service consists of methods: move this {thing} elsewhere");
            faults.at(tokens, message);
        }
        check_names(&item.ident, &procedures, &mut faults);

        match faults.0 {
            Some(faults) => Err(faults),
            None => Ok(Self {
                item,
                procedures,
                urpc,
            }),
        }
    }
}

/// The prefix that `name = ".."` gives.
fn prefix(value: Expr) -> Result<String> {
    if let Expr::Lit(ExprLit {
        lit: Lit::Str(name),
        ..
    }) = &value
    {
        let name = name.value();
        // It stands before the dot of `Calc.add` and before the parenthesis of the signature.
        let is_plain = |c: char| c.is_alphanumeric() || "_-.:/".contains(c);
        if !name.is_empty() && name.chars().all(is_plain) {
            return Ok(name);
        }
    }
    let message = "a service's name is a string of letters, digits and `_-.:/`: \
                   write `name = \"Other\"`";
    Err(Error::new_spanned(value, message))
}

/// Checks what stands before the trait's `{`.
fn check_trait(item: &ItemTrait, faults: &mut Faults) {
    let modifiers = [
        item.unsafety.map(ToTokens::into_token_stream),
        item.modifiers.auto_token.map(ToTokens::into_token_stream),
    ];
    for modifier in modifiers.into_iter().flatten() {
        let message = format!("a service is a plain trait: remove `{modifier}`");
        faults.at(modifier, message);
    }
    let message = "a service has no generics, for both processes agree on every type: \
                   write one trait for each";
    faults.unwanted(item.generics.lt_token.map(|_| &item.generics), message);
    faults.unwanted(item.generics.where_clause.as_ref(), message);
}

/// Checks that no procedure hides another, or one of the client's own methods.
fn check_names(service: &Ident, procedures: &[Procedure], faults: &mut Faults) {
    for (position, procedure) in procedures.iter().enumerate() {
        let ident = &procedure.function.sig.ident;
        let name = ident.unraw().to_string();
        if RESERVED.contains(&name.as_str()) {
            let message = format!("`{name}` is `{service}Client`'s own: choose another name");
            faults.at(ident, message);
        }
        // Of two methods that each have a `#[cfg]`, there may be one at a time. Where both
        // exist, the compiler says so.
        let hides = |other: &Procedure| {
            other.name == procedure.name && !(other.is_conditional() && procedure.is_conditional())
        };
        if procedures[..position].iter().any(hides) {
            let message = format!(
                "there already is a procedure `{}`: rename one",
                procedure.name
            );
            faults.at(ident, message);
        }
    }
}

impl Procedure {
    /// Reads one method. `None` if it has a fault that leaves nothing to go on with.
    fn check(prefix: &str, function: TraitItemFn, faults: &mut Faults) -> Option<Self> {
        let sig = &function.sig;
        if sig.asyncness.is_none() {
            let message = format!(
                "a procedure waits for another process: write `async fn {}`",
                sig.ident
            );
            faults.at(sig.fn_token, message);
        }
        check_qualifiers(&function, faults);
        let generics = "a procedure has no generics and no lifetimes, for both processes agree on \
                        every type: write one method for each";
        faults.unwanted(sig.generics.lt_token.map(|_| &sig.generics), generics);
        faults.unwanted(sig.generics.where_clause.as_ref(), generics);
        check_attributes(&function.attrs, faults);

        let mut inputs = sig.inputs.iter();
        match inputs.next() {
            Some(FnArg::Receiver(receiver)) => check_receiver(receiver, faults),
            first => {
                let message =
                    "a procedure is called on a service: make `&self` the first parameter";
                match first {
                    Some(first) => faults.at(first, message),
                    None => faults.at(&sig.ident, message),
                }
                return None;
            }
        }
        let mut arguments = Vec::new();
        for input in inputs {
            if let FnArg::Typed(argument) = input {
                let ident = check_argument(argument, function.default.is_some(), faults);
                arguments.extend(ident.map(|ident| (ident, (*argument.ty).clone())));
            }
        }
        let count = sig.inputs.len() - 1;
        if count > MAX_ARGUMENTS {
            let message = format!(
                "a procedure has at most {MAX_ARGUMENTS} arguments, not {count}: \
                 gather some in a struct"
            );
            faults.at(&sig.inputs, message);
        }
        let result = match &sig.output {
            ReturnType::Default => parse_quote!(()),
            ReturnType::Type(_, ty) => (**ty).clone(),
        };
        if let Err(fault) = signature::check(&result, "results are") {
            faults.add(fault);
        }

        let name = format!("{prefix}.{}", sig.ident.unraw());
        let signature = signature::signature(&name, arguments.iter().map(|(_, ty)| ty), &result);
        Some(Self {
            function,
            name,
            signature,
            arguments,
            result,
        })
    }

    /// The predicates of the method's `#[cfg]`s: it exists if all of them hold.
    pub(crate) fn conditions(&self) -> Vec<TokenStream> {
        let conditions = self
            .function
            .attrs
            .iter()
            .filter(|attribute| attribute.path().is_ident("cfg"));
        conditions
            .filter_map(|attribute| attribute.parse_args().ok())
            .collect()
    }

    /// Whether the method may not exist.
    fn is_conditional(&self) -> bool {
        !self.conditions().is_empty()
    }
}

/// Checks that nothing but `async` stands before `fn`, and no `...` at the end.
fn check_qualifiers(function: &TraitItemFn, faults: &mut Faults) {
    let sig = &function.sig;
    let safety = !matches!(sig.safety, Safety::Default);
    let qualifiers: [Option<TokenStream>; 5] = [
        function
            .modifiers
            .defaultness
            .map(ToTokens::into_token_stream),
        sig.constness.map(ToTokens::into_token_stream),
        safety.then(|| sig.safety.to_token_stream()),
        sig.abi.as_ref().map(ToTokens::to_token_stream),
        sig.variadic.as_ref().map(ToTokens::to_token_stream),
    ];
    for qualifier in qualifiers.into_iter().flatten() {
        let message = format!("a procedure is a plain `async fn`: remove `{qualifier}`");
        faults.at(qualifier, message);
    }
}

/// Checks that the receiver is `&self`.
fn check_receiver(receiver: &Receiver, faults: &mut Faults) {
    match &receiver.kind {
        ReceiverKind::Reference(_, None, None) => {}
        ReceiverKind::Reference(_, Some(lifetime), None) => {
            let message = format!("a procedure has no lifetimes: remove `{lifetime}`");
            faults.at(lifetime, message);
        }
        _ => {
            let message = "many calls share one service: take `&self`, and keep what changes in a \
                           lock or in atomics";
            faults.at(receiver, message);
        }
    }
}

/// Checks one argument and returns its name. `mut` is fine where there is a body for it.
fn check_argument(argument: &PatType, has_body: bool, faults: &mut Faults) -> Option<Ident> {
    if let Err(fault) = signature::check(&argument.ty, "arguments are") {
        faults.add(fault);
    }
    for attribute in &argument.attrs {
        if attribute.path().is_ident("cfg") || hides_cfg(attribute) {
            let message = "the arguments are part of the signature: put the `#[cfg]` on the method";
            faults.at(attribute, message);
        }
    }
    match &*argument.pat {
        Pat::Ident(pat) if pat.by_ref.is_none() && pat.subpat.is_none() => {
            if !has_body {
                let message = "`mut` is up to the implementation: remove it here";
                faults.unwanted(pat.mutability, message);
            }
            Some(pat.ident.clone())
        }
        pattern => {
            faults.at(
                pattern,
                "an argument is a plain name, not a pattern: name it",
            );
            None
        }
    }
}

/// Checks that every condition is in plain sight: `Procedure::conditions` looks for `#[cfg]`.
fn check_attributes(attributes: &[Attribute], faults: &mut Faults) {
    for attribute in attributes.iter().filter(|attribute| hides_cfg(attribute)) {
        let message = "a procedure's place depends on each `#[cfg]` before it: \
                       write `#[cfg(..)]` itself, not inside `#[cfg_attr]`";
        faults.at(attribute, message);
    }
}

/// Whether this is a `#[cfg_attr]` that may stand for a `#[cfg]`.
fn hides_cfg(attribute: &Attribute) -> bool {
    let is_cfg =
        |token| matches!(token, TokenTree::Ident(word) if word == "cfg" || word == "cfg_attr");
    attribute.path().is_ident("cfg_attr")
        && attribute
            .parse_args::<TokenStream>()
            .is_ok_and(|tokens| tokens.into_iter().any(is_cfg))
}

#[cfg(test)]
mod tests;
