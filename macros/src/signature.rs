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
fn text(ty: &(impl ToTokens + ?Sized)) -> String {
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
}

impl<'ast> Visit<'ast> for Owned {
    fn visit_type_reference(&mut self, reference: &'ast TypeReference) {
        let owned = match &*reference.elem {
            Type::Path(path) if path.path.is_ident("str") => "String".to_owned(),
            Type::Path(path) if path.path.is_ident("Path") => "PathBuf".to_owned(),
            Type::Slice(slice) => format!("Vec<{}>", text(&slice.elem)),
            other => text(other),
        };
        let message = format!("{} owned: use `{owned}`", self.what);
        // No descent: the advice already covers what is inside.
        self.report(reference, message);
    }

    fn visit_type_impl_trait(&mut self, ty: &'ast TypeImplTrait) {
        let message = format!(
            "{} of one type, the same in both processes: name it in place of `{}`",
            self.what,
            text(ty)
        );
        self.report(ty, message);
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
mod tests {
    use super::*;
    use quote::quote;
    use syn::parse_quote;

    fn errors(ty: Type) -> Vec<String> {
        let error = check(&ty, "arguments are").expect_err("this type cannot cross");
        error.into_iter().map(|error| error.to_string()).collect()
    }

    #[test]
    fn a_signature_is_the_name_and_the_types() {
        let types: [Type; 2] = [parse_quote!(i64), parse_quote!(Vec<(u32, String)>)];
        let result: Type = parse_quote!(Result<i64, DivError>);
        assert_eq!(
            signature("Calc.add", types.iter(), &result),
            "Calc.add(i64, Vec<(u32, String)>) -> Result<i64, DivError>"
        );
        assert_eq!(
            signature("Calc.stop", [].iter(), &parse_quote!(())),
            "Calc.stop() -> ()"
        );
    }

    #[test]
    fn the_text_of_a_type_reads_as_people_write_it() {
        for written in [
            "()",
            "(i64,)",
            "(i64, (String,))",
            "(Map<A, B>,)",
            "[u8; 32]",
            "[u8; N]",
            "Matrix<{ N }>",
            "Matrix<-1>",
            "std::collections::BTreeMap<String, Vec<Option<u8>>>",
            "::std::string::String",
            "Cow<'static, str>",
            "Box<dyn Fn(u8, u8) -> u8 + Send + 'static>",
            "Box<dyn ::a::B>",
            "Box<dyn Iterator<Item = u8>>",
            "Box<dyn for<'a> Fn(&'a mut T)>",
            "<Vec<u8> as ::a::Trait>::Item",
            "<(u8, u8) as Trait>::Item",
            "fn(u8) -> (Map<A, B>, u8)",
            "(fn(u8) -> Map<A, B>,)",
            "*const u8",
        ] {
            let ty: Type = syn::parse_str(written).expect("a type");
            assert_eq!(text(&ty), written.replace("{ N }", "{N}"));
        }
    }

    #[test]
    fn layout_and_trailing_commas_leave_no_trace() {
        let ty: Type =
            syn::parse_str("Map <\n  Vec < u8 , > ,( u8,\n u8 , ) , > ").expect("a type");
        assert_eq!(text(&ty), "Map<Vec<u8>, (u8, u8)>");
    }

    #[test]
    fn the_invisible_groups_of_macro_rules_leave_no_trace() {
        let inner = proc_macro2::Group::new(Delimiter::None, quote!(Vec<u8>));
        let ty: Type = parse_quote!(Option<#inner>);
        assert_eq!(text(&ty), "Option<Vec<u8>>");
        let ty: Type = parse_quote!((#inner,));
        assert_eq!(text(&ty), "(Vec<u8>,)");
    }

    #[test]
    fn owned_types_can_cross() {
        for written in [
            "()",
            "Cow<'static, str>",
            "[u8; A & B]",
            "Vec<(u8, a::Selfish)>",
        ] {
            let ty: Type = syn::parse_str(written).expect("a type");
            assert!(check(&ty, "arguments are").is_ok(), "{written}");
        }
    }

    #[test]
    fn a_reference_is_answered_with_the_owned_type() {
        assert_eq!(
            errors(parse_quote!(&str)),
            ["arguments are owned: use `String`"]
        );
        assert_eq!(
            errors(parse_quote!(&'static str)),
            ["arguments are owned: use `String`"]
        );
        assert_eq!(
            errors(parse_quote!(&[(u8, u8)])),
            ["arguments are owned: use `Vec<(u8, u8)>`"]
        );
        assert_eq!(
            errors(parse_quote!(&Path)),
            ["arguments are owned: use `PathBuf`"]
        );
        assert_eq!(
            errors(parse_quote!(Map<&str, &mut Account>)),
            [
                "arguments are owned: use `String`",
                "arguments are owned: use `Account`"
            ]
        );
    }

    #[test]
    fn a_lifetime_other_than_static_is_an_error() {
        let expected = "arguments are owned: use `'static` in place of `'_`";
        assert_eq!(errors(parse_quote!(Cow<'_, str>)), [expected]);
    }

    #[test]
    fn impl_trait_is_an_error() {
        let expected = "arguments are of one type, the same in both processes: \
                        name it in place of `impl Into<String>`";
        assert_eq!(errors(parse_quote!(impl Into<String>)), [expected]);
    }

    #[test]
    fn the_service_itself_does_not_cross() {
        let expected = "`Self` is the service, which stays with the server: name another type";
        assert_eq!(errors(parse_quote!(Self)), [expected]);
        assert_eq!(errors(parse_quote!(Vec<Self::Item>)), [expected]);
    }
}
