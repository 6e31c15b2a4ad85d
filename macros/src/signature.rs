//! What a procedure's signature looks like as text, and which types may stand in it.
//!
//! Client and server compare signatures as text, so types in the same words give the same text,
//! whatever the layout of the source: spaces, line breaks, trailing commas and the invisible
//! groups of `macro_rules` leave no trace. Types are not resolved: `String` and
//! `std::string::String` differ.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{Error, Expr, Lifetime, Path, Result, Type, TypeImplTrait, TypeReference};

/// Words that a space follows, whatever comes next.
const KEYWORDS: [&str; 7] = ["as", "const", "dyn", "extern", "impl", "mut", "unsafe"];

/// The signature of the procedure `name`: `Calc.add(i64, i64) -> i64`.
pub(crate) fn signature<'a>(
    name: &str,
    arguments: impl Iterator<Item = &'a Type>,
    result: &Type,
) -> String {
    let arguments: Vec<String> = arguments.map(text).collect();
    format!("{name}({}) -> {}", arguments.join(", "), text(result))
}

/// A type as people write it: `Vec<(u32, String)>`.
pub(crate) fn text(ty: &(impl ToTokens + ?Sized)) -> String {
    let mut text = String::new();
    write(&mut text, &visible(ty.to_token_stream()));
    text
}

/// The tokens without the invisible groups that `macro_rules` puts around a `$t:ty`.
fn visible(tokens: TokenStream) -> Vec<TokenTree> {
    let unwrap = |token| match token {
        TokenTree::Group(group) if group.delimiter() == Delimiter::None => visible(group.stream()),
        token => vec![token],
    };
    tokens.into_iter().flat_map(unwrap).collect()
}

/// What the last token was, as far as the space after it is concerned.
#[derive(Clone, Copy, PartialEq)]
enum Last {
    /// A word, a literal, or something closed: a word that follows needs a space.
    Word,
    /// One of [`KEYWORDS`]: whatever follows needs a space.
    Keyword,
    /// Nothing, or punctuation that has brought its own space or wants none.
    Mark,
}

/// Appends `tokens` to `text`.
fn write(text: &mut String, tokens: &[TokenTree]) {
    let mut last = Last::Mark;
    let mut rest = tokens;
    while let [token, after @ ..] = rest {
        rest = after;
        let is_word = matches!(token, TokenTree::Ident(_) | TokenTree::Literal(_));
        if last == Last::Keyword || (last == Last::Word && is_word) {
            text.push(' ');
        }
        last = match token {
            TokenTree::Ident(word) => {
                let word = word.to_string();
                text.push_str(&word);
                let keyword = KEYWORDS.contains(&word.as_str());
                if keyword { Last::Keyword } else { Last::Word }
            }
            TokenTree::Literal(literal) => {
                text.push_str(&literal.to_string());
                Last::Word
            }
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::None => ("", ""),
                };
                let inner = visible(group.stream());
                text.push_str(open);
                write(text, &inner);
                if group.delimiter() == Delimiter::Parenthesis && is_one_tuple(&inner) {
                    text.push(',');
                }
                text.push_str(close);
                Last::Word
            }
            TokenTree::Punct(mark) => {
                let next = after.first().and_then(punct);
                let joined = mark.spacing() == Spacing::Joint;
                match mark.as_char() {
                    '-' if joined && next == Some('>') => {
                        rest = &after[1..];
                        text.push_str(" -> ");
                    }
                    ':' if joined && next == Some(':') => {
                        rest = &after[1..];
                        text.push_str("::");
                    }
                    // Trailing: it says nothing, but for one-tuples, and those are seen to above.
                    ',' if after.is_empty() || next == Some('>') => {}
                    mark @ (',' | ';' | ':') => text.extend([mark, ' ']),
                    mark @ ('=' | '+') => text.extend([' ', mark, ' ']),
                    mark => text.push(mark),
                }
                if mark.as_char() == '>' {
                    Last::Word
                } else {
                    Last::Mark
                }
            }
        };
    }
}

/// The character of a punctuation token.
fn punct(token: &TokenTree) -> Option<char> {
    match token {
        TokenTree::Punct(mark) => Some(mark.as_char()),
        _ => None,
    }
}

/// Whether what stands in parentheses is `A,`: one element, and a comma to make it a tuple.
fn is_one_tuple(inner: &[TokenTree]) -> bool {
    // Commas between angle brackets are not the tuple's. The `>` of an arrow closes nothing.
    let mut depth = 0;
    let mut before = None;
    let mut commas = 0;
    for mark in inner.iter().map(punct) {
        match mark {
            Some('<') => depth += 1,
            Some('>') if before != Some('-') => depth -= 1,
            Some(',') if depth == 0 => commas += 1,
            _ => {}
        }
        before = mark;
    }
    commas == 1 && before == Some(',')
}

/// Checks that a value of type `ty` can cross to another process, as far as its tokens tell: the
/// rest is up to serde's traits. `what` is "arguments are" or "a result is".
///
/// # Errors
///
/// One for each reference, lifetime, `impl Trait` and `Self`, combined.
pub(crate) fn check(ty: &Type, what: &'static str) -> Result<()> {
    let mut owned = Owned {
        what,
        result: Ok(()),
    };
    owned.visit_type(ty);
    owned.result
}

/// Looks for what ties a type to one process.
struct Owned {
    what: &'static str,
    result: Result<()>,
}

impl Owned {
    fn report(&mut self, tokens: impl ToTokens, message: String) {
        let error = Error::new_spanned(tokens, message);
        match &mut self.result {
            Ok(()) => self.result = Err(error),
            Err(errors) => errors.combine(error),
        }
    }

    /// Reports a type that leaves open which one it is.
    fn nameless(&mut self, ty: &impl ToTokens) {
        let message = format!(
            "{} of one type, the same in both processes: name it in place of `{}`",
            self.what,
            text(ty)
        );
        self.report(ty, message);
    }
}

/// The type without parentheses around it, visible or not.
fn bare(ty: &Type) -> &Type {
    match ty {
        Type::Paren(inner) => bare(&inner.elem),
        Type::Group(inner) => bare(&inner.elem),
        ty => ty,
    }
}

/// The type that owns what a reference to `ty` borrows, as text that compiles wherever it stands.
fn owned(ty: &Type) -> String {
    match bare(ty) {
        Type::Reference(inner) => owned(&inner.elem),
        Type::Slice(slice) => format!("Vec<{}>", owned(&slice.elem)),
        Type::Path(path) => unsized_path(&path.path).map_or_else(|| text(path), str::to_owned),
        other => text(other),
    }
}

/// What owns the std's type of this name, if it has to be borrowed: `Path`, `path::Path`.
fn unsized_path(path: &Path) -> Option<&'static str> {
    let mut names = path.segments.iter().rev().map(|segment| &segment.ident);
    let (name, module) = (names.next()?, names.next());
    let (home, owned) = match name.to_string().as_str() {
        "str" => ("primitive", "String"),
        "Path" => ("path", "std::path::PathBuf"),
        "OsStr" => ("ffi", "std::ffi::OsString"),
        "CStr" => ("ffi", "std::ffi::CString"),
        _ => return None,
    };
    module.is_none_or(|module| module == home).then_some(owned)
}

impl<'ast> Visit<'ast> for Owned {
    fn visit_type_reference(&mut self, reference: &'ast TypeReference) {
        match bare(&reference.elem) {
            Type::TraitObject(_) | Type::ImplTrait(_) => self.nameless(reference),
            // No descent: the advice already covers what is inside.
            ty => self.report(
                reference,
                format!("{} owned: use `{}`", self.what, owned(ty)),
            ),
        }
    }

    fn visit_type_impl_trait(&mut self, ty: &'ast TypeImplTrait) {
        self.nameless(ty);
    }

    fn visit_lifetime(&mut self, lifetime: &'ast Lifetime) {
        if lifetime.ident != "static" {
            let message = format!(
                "{} owned: use `'static` in place of `{lifetime}`",
                self.what
            );
            self.report(lifetime, message);
        }
    }

    fn visit_path(&mut self, path: &'ast Path) {
        if let Some(first) = path.segments.first()
            && first.ident == "Self"
        {
            let message = "`Self` is the service, which stays with the server: name another type";
            self.report(first, message.to_owned());
        }
        visit::visit_path(self, path);
    }

    /// The length of an array is a number, not a value that crosses.
    fn visit_expr(&mut self, _: &'ast Expr) {}
}

#[cfg(test)]
mod tests;
